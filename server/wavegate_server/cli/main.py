"""The `wavegate` command: finds the part that is asked for, loads only that, and turns errors into exit codes.

Each part is a module of its own with a typer application or one function; `wavegate --help` lists them without loading any,
so that it is quick. `python -m wavegate_server.cli.main` is the same command.
"""

import importlib
import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from wavegate_shared import __version__
from wavegate_shared.errors import WavegateError

__all__ = ["PARTS", "Part", "build_app", "main", "run"]


@dataclass(frozen=True, slots=True)
class Part:
    """One word after `wavegate`. Attributes: name, module and attribute (a typer application or a function), summary."""

    name: str
    module: str
    attribute: str
    summary: str


PARTS = (
    Part("serve", "wavegate_server.cli.serve", "serve", "Run the server: API, dashboard, broker, rollouts."),
    Part("demo", "wavegate_server.cli.demo", "demo", "Show the whole loop on this machine, with eight devices."),
    Part("doctor", "wavegate_server.cli.doctor", "doctor", "Say what is wrong with this installation."),
    Part("model", "wavegate_server.cli.model", "app", "Models: import, publish, look at versions."),
    Part("rollout", "wavegate_server.cli.rollout", "app", "Rollouts: start, watch, steer, explain."),
    Part("fleet", "wavegate_server.cli.fleet", "app", "The whole fleet: what devices get that come later."),
    Part("device", "wavegate_server.cli.device", "app", "Devices: register, enrol, look at, explain."),
    Part(
        "compress",
        "wavegate_server.cli.compress.command",
        "compress",
        "Make a bundle smaller and faster within a budget.",
    ),
    Part(
        "compress-job",
        "wavegate_server.cli.compress.on_server",
        "app",
        "Compression jobs on the server: follow, cancel.",
    ),
    Part("keys", "wavegate_server.cli.keys", "app", "Signing keys and the signed release list."),
    Part("broker", "wavegate_server.cli.broker", "app", "The MQTT broker's configuration."),
    Part("token", "wavegate_server.cli.token", "app", "API tokens: make, list, revoke."),
)
_HELP = """\
Roll machine-learning models out to fleets of devices, with proof at each step.

Exit codes: 0 done, 1 it failed, 2 the command line was wrong, 3 it worked but the verdict was not met (a rollout that
was rolled back, a budget that no candidate met).

Example: wavegate demo
"""
_VALUE_OPTIONS = frozenset({"--server", "--ca", "--token-file"})


def build_app(wanted: Collection[str] | None = None) -> typer.Typer:
    """The command tree. Parts outside `wanted` are listed with their summary but not loaded; None loads all."""
    app = typer.Typer(help=_HELP, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown")
    app.callback()(_root)
    for part in PARTS:
        if wanted is not None and part.name not in wanted:
            app.command(part.name, help=part.summary)(_not_loaded)
            continue
        target = getattr(importlib.import_module(part.module), part.attribute)
        if isinstance(target, typer.Typer):
            app.add_typer(target, name=part.name, help=part.summary)
        else:
            app.command(part.name)(target)
    return app


def run(arguments: Sequence[str]) -> int:
    """Run one command line; gives the exit code."""
    from wavegate_server.cli.output import ExitCode, print_error
    from wavegate_server.core.advice import Refused

    wanted = None if "_WAVEGATE_COMPLETE" in os.environ else {_first_command(arguments)}
    try:
        build_app(wanted)(list(arguments), prog_name="wavegate")
    except (WavegateError, Refused) as error:
        print_error(error, as_json="--json" in arguments)
        local = isinstance(error, WavegateError) and error.code == "invalid"
        return ExitCode.USAGE if local else ExitCode.FAILURE
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    return ExitCode.OK


def main() -> None:
    """Entry point of the installed command."""
    sys.exit(run(sys.argv[1:]))


def _root(
    context: typer.Context,
    server: Annotated[
        str | None, typer.Option(help="Address of the server; else WAVEGATE_SERVER, else https://localhost:8443.")
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(help="The server's certificate authority; else WAVEGATE_CA, else the data directory's."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with an API token; else WAVEGATE_TOKEN, else the data directory's admin.token."),
    ] = None,
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=lambda on: _print_version(on)),
    ] = False,
) -> None:
    # the client module costs httpx and pydantic: only `serve --help` and the like pay nothing for it
    if context.invoked_subcommand in ("model", "rollout", "device", "token", "compress", "compress-job"):
        from wavegate_server.cli.client import Connection

        context.obj = Connection(server, ca, token_file)


def _print_version(on: bool) -> None:
    if on:
        typer.echo(f"wavegate {__version__}")
        raise typer.Exit


def _first_command(arguments: Sequence[str]) -> str:
    names = {part.name for part in PARTS}
    skip = False
    for argument in arguments:
        if not skip and argument in names:
            return argument
        skip = argument in _VALUE_OPTIONS
    return ""


def _not_loaded() -> None:
    raise AssertionError("a part that was not asked for")


if __name__ == "__main__":
    main()
