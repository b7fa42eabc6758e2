"""`wavegate compress-job ...`, and the part of `wavegate compress` that lets the server do it: start, follow, list, cancel."""

import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Any, BinaryIO, cast

import typer

from wavegate_server.adapters import clock
from wavegate_server.cli.client import connect
from wavegate_server.cli.compress.display import Display, print_result
from wavegate_server.cli.output import ExitCode, JsonFlag, ago, lines, print_json, table
from wavegate_server.cli.upload import upload_progress, zipped
from wavegate_server.client import Client, at
from wavegate_shared.errors import TransferError

__all__ = ["app", "compress_on_server"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")

JobNumber = Annotated[int, typer.Argument(metavar="JOB", help="The job's number.", min=1, show_default=False)]
_OPEN = ("queued", "running")
_POLL_S = 0.7
_PATIENCE_S = 120.0
"""How long following bears a server that does not answer: longer than a restart."""


def compress_on_server(
    context: typer.Context,
    what: Path | tuple[str, int],
    *,
    budget: str,
    device_class: str,
    time_s: float,
    detach: bool,
    as_json: bool,
) -> ExitCode:
    """Start a job for a bundle or a version, and follow it unless told not to; gives the exit code."""
    with connect(context) as client:
        if isinstance(what, Path):
            fields = {"budget": budget, "class": device_class, "time_s": str(time_s)}
            with zipped(what) as archive, upload_progress(archive, quiet=as_json) as file:
                job = client.upload("/compress-jobs/upload", archive.name, cast(BinaryIO, file), fields)
        else:
            model, version = what
            wanted = {"model": model, "version": version, "budget": budget, "class": device_class, "time_s": time_s}
            job = client.post("/compress-jobs", wanted)
        if detach:
            print_json(job) if as_json else lines(f"job {job['id']} is {job['state']}", _how_to_go_on(job["id"]))
            return ExitCode.OK
        return _follow(client, job["id"], as_json=as_json)


@app.command("list")
def list_jobs(
    context: typer.Context,
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    state: Annotated[
        str | None, typer.Option(help="Only in this state: queued, running, met, not_met, failed, cancelled.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """List compression jobs, newest first.

    Example: wavegate compress-job list --state running
    """
    with connect(context) as client:
        jobs = client.pages("/compress-jobs", model=model, state=state)
    if as_json:
        print_json({"items": jobs})
        return
    now = clock.now()
    table(
        ["job#", "version", "budget", "class", "state", "result", "begun", "why"],
        [
            (
                job["id"],
                f"{job['model']} {job['version']}",
                job["budget"],
                job["class"],
                job["state"],
                f"{job['model']} {job['result_version']}" if job["result_version"] else None,
                ago(job["started_at"], now) if job["started_at"] else None,
                _why(job),
            )
            for job in jobs
        ],
        empty="No compression jobs yet: wavegate compress MODEL@VERSION",
    )


@app.command()
def show(context: typer.Context, job: JobNumber, as_json: JsonFlag = False) -> None:
    """Show a job: where it is, or its candidates, verdicts and what it became.

    Example: wavegate compress-job show 3
    """
    with connect(context) as client:
        one = client.get(at("compress-jobs", job))
    print_json(one) if as_json else _print_job(one)


@app.command()
def watch(context: typer.Context, job: JobNumber, as_json: JsonFlag = False) -> None:
    """Follow a job to its end. Exit codes as of `wavegate compress`; Ctrl-C asks whether to cancel it.

    Example: wavegate compress-job watch 3
    """
    with connect(context) as client:
        raise typer.Exit(_follow(client, job, as_json=as_json))


@app.command()
def cancel(context: typer.Context, job: JobNumber, as_json: JsonFlag = False) -> None:
    """End a job; the registry stays as it was, and finished steps are kept for the next one. Repeating it changes nothing.

    Example: wavegate compress-job cancel 3
    """
    with connect(context) as client:
        one = _cancel(client, job)
    if as_json:
        print_json(one)
    else:
        lines(f"job {job} is cancelled" if one["state"] == "cancelled" else f"job {job} ends within seconds")


def _follow(client: Client, number: int, *, as_json: bool) -> ExitCode:
    first = client.get(at("compress-jobs", number))
    title = f"job {number}: {first['model']} {first['version']} on the server"
    with Display(title, first["time_s"], quiet=as_json) as display:
        if not display.on and not as_json:
            lines(f"{title}, budget {first['budget']}")
        seen = 0
        while True:
            try:
                job, seen = _look(client, number, seen, display)
                if job["state"] not in _OPEN:
                    break
                pause(_POLL_S)
            except KeyboardInterrupt:
                display.pause()
                if not _asked_to_cancel(number):
                    return ExitCode.FAILURE
                _cancel(client, number)
                display.go_on()
    if as_json:
        print_json({**job["result"], "job": {name: value for name, value in job.items() if name != "result"}})
    else:
        _print_job(job)
    return {"met": ExitCode.OK, "not_met": ExitCode.NOT_MET}.get(job["state"], ExitCode.FAILURE)


def _look(client: Client, number: int, seen: int, display: Display) -> tuple[dict[str, Any], int]:
    """The job, and the id of the last event shown; waits for a server that is away for a while."""
    limit = time.monotonic() + _PATIENCE_S
    while True:
        try:
            events = client.get(at("compress-jobs", number, "events"), after=seen, limit=200)["items"]
            job = client.get(at("compress-jobs", number))
            break
        except TransferError:
            if time.monotonic() > limit:
                raise
            display.tell("waiting for the server")
            pause(_POLL_S)
    for event in events:
        display.tell(event["stage"], event["candidate"], event["best"])
    display.used(job["used_s"])
    if job["state"] == "queued":
        display.tell("waiting: one job runs at a time")
    elif now := job["progress"]:
        display.tell(now["stage"], now["candidate"], now["best"], now.get("detail", ""))
    return job, events[-1]["id"] if events else seen


def pause(seconds: float) -> None:
    """Wait between two looks at a job."""
    threading.Event().wait(seconds)


def _asked_to_cancel(number: int) -> bool:
    """Whether the operator wants the job to end; it goes on where nobody can be asked."""
    if sys.stdin.isatty():
        try:
            if typer.confirm(f"\ncancel job {number}? (no: it goes on without you)", err=True):
                return True
        except (KeyboardInterrupt, typer.Abort):
            pass
    typer.echo(f"job {number} goes on; {_how_to_go_on(number)}", err=True)
    return False


def _cancel(client: Client, number: int) -> dict[str, Any]:
    place = at("compress-jobs", number)
    return client.change("POST", f"{place}/cancel", place)


def _how_to_go_on(number: int) -> str:
    return f"follow it: wavegate compress-job watch {number}; end it: wavegate compress-job cancel {number}"


def _why(job: dict[str, Any]) -> str:
    now = job["progress"]
    if job["state"] == "running" and now:
        return f"{now['candidate']}: {now['stage']}" if now["candidate"] else str(now["stage"])
    return str(job["reason"])


def _print_job(job: dict[str, Any]) -> None:
    lines(f"job {job['id']}: {job['model']} {job['version']}, budget {job['budget']}: {job['state']}")
    if why := _why(job):
        lines(f"  {why}")
    if job["result"]:
        print_result(job["result"])
    if number := job["result_version"]:
        lines(
            f"imported as {job['model']} {number}, made from {job['model']} {job['version']}, not published",
            f"next: wavegate model publish {job['model']} {number}",
        )
