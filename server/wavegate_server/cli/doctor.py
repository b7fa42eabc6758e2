"""`wavegate doctor`: what is wrong with this installation, or will be soon."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wavegate_server.adapters import clock
from wavegate_server.cli.output import ExitCode, JsonFlag, lines, print_json
from wavegate_server.config import Settings
from wavegate_server.doctor import Level, examine

__all__ = ["doctor"]


def doctor(
    data_dir: Annotated[Path | None, typer.Option(help="Which installation; else WAVEGATE_DATA_DIR.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Look at keys, certificates, metadata, broker and files; say what is wrong and what to do. Exit code 1 on an error.

    Example: wavegate doctor
    """
    settings = Settings(data_dir=data_dir) if data_dir else Settings()
    findings = examine(settings, clock.now())
    if as_json:
        print_json({"findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            lines(f"{finding.level:8} {finding.check}: {finding.sentence}")
            if finding.advice:
                lines(f"{'':8} -> {finding.advice}")
    if any(finding.level is Level.ERROR for finding in findings):
        raise typer.Exit(ExitCode.FAILURE)
