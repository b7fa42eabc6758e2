"""`wavegate compress`: a bundle in, a smaller and faster bundle out, with the verdict on every budget item.

A bundle is compressed here, and the original and the result are then imported into the registry of the server, where one is
set up and answers. A version of the registry (`MODEL@VERSION`), or a bundle with `--remote`, is compressed by the server.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from wavegate_server.adapters.files.bundles import Bundle, open_bundle
from wavegate_server.cli.compress.device_round import ApiRound
from wavegate_server.cli.compress.display import Display, print_comparison, print_result
from wavegate_server.cli.compress.import_result import Taken, take
from wavegate_server.cli.compress.on_server import compress_on_server
from wavegate_server.cli.output import ExitCode, JsonFlag, lines, print_json
from wavegate_server.cli.parse import parse_duration
from wavegate_server.compress.job import JobResult, Options, run_job
from wavegate_server.compress.process.step_cache import default_directory
from wavegate_server.compress.search.distilling import Teaching
from wavegate_server.compress.search.report import as_json as result_json
from wavegate_server.compress.search.workbench import CALIBRATION
from wavegate_server.core.compress.budget import BudgetItem, default_budget, parse_budget
from wavegate_shared.errors import UsageError

__all__ = ["compress", "print_comparison"]

_Calibration = Annotated[
    int, typer.Option(min=1, max=10_000, help="Samples that calibrate static int8 recipes, at most; more is no better.")
]
_Temperature = Annotated[
    float,
    typer.Option(min=0.1, max=100.0, help="Where a smaller structure is distilled: how far answers are softened."),
]
_Alpha = Annotated[
    float,
    typer.Option(min=0.0, max=1.0, help="Where a smaller structure is distilled: the teacher's share in the loss."),
]
_What = Annotated[
    str,
    typer.Argument(
        metavar="BUNDLE|MODEL@VERSION",
        help="Bundle to compress, a directory or a zip; or a version in the registry.",
        show_default=False,
    ),
]
_Budget = Annotated[
    str,
    typer.Option(
        help="What to reach, as size=-70%,drop=2pt,speed=1.3x or size<=5MB,accuracy>=0.97; "
        "default size=-70%,drop=2pt, or size=-70%,error=+5% for a metric where less is better, and the bundle's SLO."
    ),
]
_Out = Annotated[Path | None, typer.Option(help="Directory for the result; default BUNDLE-compressed.")]
_Time = Annotated[str, typer.Option(help="When to stop trying, as 90s, 10m or 1h; what was found is judged.")]
_Class = Annotated[
    str,
    typer.Option(
        "--for",
        metavar="CLASS",
        help="Hardware class the result is for: the best candidates are measured on a device of it that is enrolled "
        "for benching; without one the verdict says host only.",
    ),
]
_Metric = Annotated[
    str, typer.Option(help="Judge by your own metric: file.py:function(outputs, labels) -> number, for any subset.")
]
_Cache = Annotated[
    Path | None, typer.Option(help="Where finished steps are kept; else WAVEGATE_CACHE, else the user's cache.")
]
_Remote = Annotated[bool, typer.Option("--remote", help="Let the server compress the bundle.")]
_Detach = Annotated[bool, typer.Option("--detach", help="On the server: start it and do not wait for its end.")]
_NoImport = Annotated[bool, typer.Option("--no-import", help="Leave the registry alone, also where a server answers.")]
_TEACHING = Teaching()
_VERSION = re.compile(r"([a-z0-9][a-z0-9-]{0,62})@([1-9][0-9]{0,8})")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the command line asks for. `budget` is empty for the metric's default."""

    budget: str
    device_class: str
    time_s: float
    as_json: bool


def compress(
    context: typer.Context,
    what: _What,
    budget: _Budget = "",
    out: _Out = None,
    time: _Time = "10m",
    device_class: _Class = "",
    metric: _Metric = "",
    cache: _Cache = None,
    calibration: _Calibration = CALIBRATION,
    temperature: _Temperature = _TEACHING.temperature,
    alpha: _Alpha = _TEACHING.alpha,
    remote: _Remote = False,
    detach: _Detach = False,
    no_import: _NoImport = False,
    as_json: JsonFlag = False,
) -> None:
    """Make a smaller, faster bundle within a budget.

    Every candidate is measured on the bundle's own samples beside the original, in one run, and judged on samples that chose
    nothing. The verdict on accuracy uses the bad end of the interval: too few samples to prove a budget is not met. A job that
    was stopped goes on from its finished steps.

    A bundle is compressed on this machine; original and result are then imported into the registry, not published, when a
    server is set up and answers. MODEL@VERSION, or a bundle with `--remote`, is compressed by the server: Ctrl-C then asks
    whether to cancel the job or to leave it running.

    Example: wavegate compress ./address-match --budget size=-70%,drop=2pt,speed=1.3x --out ./address-match-int8

    Example: wavegate compress address-match@1 --budget size=-70%,drop=1pt --for locker-small
    """
    wanted = _Wanted(budget, device_class, _seconds(time), as_json)
    options = Options(
        time_s=wanted.time_s,
        cache=cache or default_directory(),
        device_class=device_class,
        entry=metric,
        calibration=calibration,
        teaching=Teaching(temperature, alpha),
    )
    named = None if Path(what).exists() else _VERSION.fullmatch(what)
    if named or remote:
        here = {"--out": out, "--cache": cache, "--no-import": no_import}
        _refuse_local({**here, **_changed(options)})
        raise typer.Exit(_there(context, (named[1], int(named[2])) if named else Path(what), wanted, detach=detach))
    if detach:
        raise typer.BadParameter("only for a job on the server", param_hint="--detach")
    raise typer.Exit(_here(context, Path(what), out, wanted, options, no_import=no_import))


def _changed(options: Options) -> dict[str, bool]:
    """The options of the search that only a job on this machine takes, and whether they were given."""
    teaching = options.teaching
    return {
        "--metric": bool(options.entry),
        "--calibration": options.calibration != CALIBRATION,
        "--temperature": teaching.temperature != _TEACHING.temperature,
        "--alpha": teaching.alpha != _TEACHING.alpha,
    }


def _refuse_local(given: dict[str, Any]) -> None:
    if names := [name for name, value in given.items() if value]:
        raise typer.BadParameter("only for a job on this machine", param_hint=", ".join(names))


def _there(context: typer.Context, what: Path | tuple[str, int], wanted: _Wanted, *, detach: bool) -> ExitCode:
    return compress_on_server(
        context,
        what,
        budget=wanted.budget,
        device_class=wanted.device_class,
        time_s=wanted.time_s,
        detach=detach,
        as_json=wanted.as_json,
    )


def _here(
    context: typer.Context, path: Path, out: Path | None, wanted: _Wanted, options: Options, *, no_import: bool
) -> ExitCode:
    target = out or path.with_name(f"{path.stem}-compressed")
    if wanted.device_class:
        options = replace(options, device_round=ApiRound(context, wanted.device_class))
    with open_bundle(path) as bundle:
        result = _run(bundle, _items(bundle, wanted), target, options, as_json=wanted.as_json)
        written = target if result.chosen and result.chosen.path else None
        document = result_json(result, written)
        taken = Taken()
        if not no_import:
            taken = take(context, bundle, written, _record(document, bundle, wanted), quiet=wanted.as_json)
    _show(document, written, taken, as_json=wanted.as_json)
    return ExitCode.OK if result.chosen else ExitCode.NOT_MET


def _items(bundle: Bundle, wanted: _Wanted) -> list[BudgetItem]:
    try:
        spec = bundle.spec
        return parse_budget(wanted.budget or default_budget(spec.metric, spec.slo), spec.metric)
    except UsageError as error:
        raise typer.BadParameter(error.detail, param_hint="--budget") from error


def _run(bundle: Bundle, items: list[BudgetItem], target: Path, options: Options, *, as_json: bool) -> JobResult:
    with Display(f"compressing {bundle.spec.model}", options.time_s, quiet=as_json) as display:
        try:
            return run_job(
                bundle,
                items,
                target,
                lambda event: display.tell(event.stage, event.candidate, event.best, event.detail),
                options,
            )
        except KeyboardInterrupt:
            display.pause()
            typer.echo(
                "stopped; nothing was written, finished steps are kept: the same command goes on from them", err=True
            )
            raise typer.Exit(ExitCode.FAILURE) from None


def _record(document: dict[str, Any], bundle: Bundle, wanted: _Wanted) -> dict[str, Any]:
    """What the server keeps of a job that ran here."""
    return {
        "budget": wanted.budget or default_budget(bundle.spec.metric, bundle.spec.slo),
        "class": wanted.device_class,
        "time_s": wanted.time_s,
        "used_s": document["seconds"],
        "result": {name: value for name, value in document.items() if name != "out"},
    }


def _show(document: dict[str, Any], written: Path | None, taken: Taken, *, as_json: bool) -> None:
    if as_json:
        print_json({**document, "imported": taken.as_json(), "import_note": taken.note})
        return
    print_result(document)
    if written is not None:
        lines(f"written to {written}")
    lines(*taken.sentences(written))


def _seconds(text: str) -> float:
    seconds = parse_duration(text, bare="m")
    if seconds <= 0:
        raise UsageError("invalid", f"--time {text}: a job needs more than no time")
    return seconds
