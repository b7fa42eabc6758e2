"""`wavegate rollout ...`: start, watch, steer, explain."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from wavegate_server.adapters import clock
from wavegate_server.cli.client import connect
from wavegate_server.cli.output import ExitCode, JsonFlag, ago, lines, print_json, table
from wavegate_server.cli.parse import parse_baseline, parse_devices, parse_duration, parse_margins, parse_waves
from wavegate_server.cli.rollout_options import (
    Approve,
    Baseline,
    Block,
    Canaries,
    Deadline,
    Denied,
    Devices,
    Downgrade,
    IdleAfter,
    IdleWaveOption,
    LateJoinersOption,
    Margin,
    MaxFailures,
    PolicyFile,
    ProbationRequests,
    ProbationTime,
    Soak,
    StartAt,
    WatchAfter,
    WatchFlag,
    Waves,
)
from wavegate_server.client import Client, at
from wavegate_shared.errors import TransferError, UsageError

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")

RolloutId = Annotated[str, typer.Argument(metavar="ROLLOUT", help="The rollout's id.", show_default=False)]
Reason = Annotated[str, typer.Option(help="Why, for the audit log.")]
_ENDED = ("completed", "rolled_back", "cancelled")
_POLL_S = 1.0
_PATIENCE_S = 30.0
"""How long `watch` bears a server that does not answer: longer than a restart."""


@app.command()
def create(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.", show_default=False)],
    version: Annotated[int, typer.Argument(metavar="VERSION", help="A published version.", min=1, show_default=False)],
    devices: Devices = "all",
    waves: Waves = None,
    soak: Soak = None,
    block: Block = None,
    baseline: Baseline = None,
    margin: Margin = None,
    few_canaries: Canaries = None,
    probation: ProbationTime = None,
    probation_requests: ProbationRequests = None,
    idle_after: IdleAfter = None,
    idle_wave: IdleWaveOption = None,
    late_joiners: LateJoinersOption = None,
    watch_after: WatchAfter = None,
    deadline: Deadline = None,
    max_failures: MaxFailures = None,
    approve: Approve = False,
    start_at: StartAt = None,
    policy_file: PolicyFile = None,
    allow_denied: Denied = False,
    downgrade: Downgrade = None,
    watch: WatchFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Move devices to a version in waves, through the gate.

    Example: wavegate rollout create address-match 2 --devices site=berlin --waves canary=1,rest --soak 1h --block 15m
    --margin accuracy=0.5pt --few-canaries human --watch
    """
    policy = _policy(
        _policy_file(policy_file),
        baseline=baseline,
        waves=None if waves is None else parse_waves(waves),
        soak_s=_seconds(soak),
        block_s=_seconds(block),
        margins=parse_margins(margin or []),
        few_canaries=few_canaries.value if few_canaries else None,
        idle_wave=idle_wave.value if idle_wave else None,
        late_joiners=late_joiners.value if late_joiners else None,
        probation=_given(seconds=_seconds(probation), requests=probation_requests) | _idle_after(idle_after),
        watch_s=_seconds(watch_after),
        downgrade=downgrade,
        deadline_s=_seconds(deadline),
        max_install_failures=max_failures,
        require_approval=approve or None,
        start_at=None if start_at is None else f"{start_at.isoformat()}Z",
    )
    chosen = {"model": model, "version": version, "devices": parse_devices(devices), "allow_denied": allow_denied}
    _start(context, {**chosen, "policy": policy}, watch=watch, as_json=as_json)


@app.command("list")
def list_rollouts(
    context: typer.Context,
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    state: Annotated[str | None, typer.Option(help="Only in this state, as running.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List rollouts, newest first.

    Example: wavegate rollout list --state running
    """
    with connect(context) as client:
        rollouts = client.pages("/rollouts", model=model, state=state)
    if as_json:
        print_json({"items": rollouts})
        return
    now = clock.now()
    table(
        ["rollout", "version", "state", "wave", "devices", "started", "why"],
        [
            (
                r["id"],
                f"{r['model']} {r['version']}",
                r["state"],
                f"{min(r['wave'] + 1, r['waves'])}/{r['waves']}",
                _counts(r["devices"]),
                ago(r["started_at"], now),
                r["reason"],
            )
            for r in rollouts
        ],
        empty="No rollouts. Start one: wavegate rollout create MODEL VERSION --devices all",
    )


@app.command()
def show(context: typer.Context, rollout: RolloutId, as_json: JsonFlag = False) -> None:
    """Show a rollout: its waves, its devices, what the gate decided.

    Example: wavegate rollout show r-1f2e3d4c
    """
    with connect(context) as client:
        one = client.get(at("rollouts", rollout))
    if as_json:
        print_json(one)
    else:
        _show(one)


@app.command()
def watch(
    context: typer.Context,
    rollout: RolloutId,
    timeout: Annotated[str | None, typer.Option(help="Give up after this long, as 30m (exit code 1).")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Follow a rollout to its end. Exit code 0 when it completed, 3 when it was rolled back or cancelled.

    Example: wavegate rollout watch r-1f2e3d4c --timeout 2h
    """
    with connect(context) as client:
        _watch(client, rollout, timeout_s=_seconds(timeout), as_json=as_json)


@app.command()
def why(context: typer.Context, rollout: RolloutId, as_json: JsonFlag = False) -> None:
    """Say why a rollout is where it is, in plain sentences.

    Example: wavegate rollout why r-1f2e3d4c
    """
    with connect(context) as client:
        answer = client.get(at("rollouts", rollout, "why"))
    if as_json:
        print_json(answer)
    else:
        lines(*(step["sentence"] for step in answer["steps"]))


@app.command()
def pause(context: typer.Context, rollout: RolloutId, reason: Reason = "", as_json: JsonFlag = False) -> None:
    """Stop offering the version; devices that have it keep it.

    Example: wavegate rollout pause r-1f2e3d4c --reason "holiday"
    """
    _act(context, rollout, "pause", reason, as_json=as_json)


@app.command()
def resume(context: typer.Context, rollout: RolloutId, reason: Reason = "", as_json: JsonFlag = False) -> None:
    """Go on with a paused rollout.

    Example: wavegate rollout resume r-1f2e3d4c
    """
    _act(context, rollout, "resume", reason, as_json=as_json)


@app.command()
def approve(context: typer.Context, rollout: RolloutId, reason: Reason = "", as_json: JsonFlag = False) -> None:
    """Start a rollout that waits for approval, or promote its wave that waits for a human.

    Example: wavegate rollout approve r-1f2e3d4c --reason "looked at the flips"
    """
    _act(context, rollout, "approve", reason, as_json=as_json)


@app.command()
def abort(context: typer.Context, rollout: RolloutId, reason: Reason = "", as_json: JsonFlag = False) -> None:
    """End a rollout where it stands; devices that have the version keep it.

    Example: wavegate rollout abort r-1f2e3d4c --reason "superseded"
    """
    _act(context, rollout, "abort", reason, as_json=as_json)


@app.command()
def rollback(
    context: typer.Context,
    rollout: RolloutId,
    reason: Reason = "",
    watch: Annotated[
        bool, typer.Option("--watch", help="Stay until no device has the version; exit code 3 when some still have it.")
    ] = False,
    timeout: Annotated[
        str | None, typer.Option(help="With --watch: give up after this long, as 30m (exit code 3).")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Bring every device of the rollout that runs the version back to its own previous one, without a download.

    Example: wavegate rollout rollback r-1f2e3d4c --reason "complaints from berlin"
    """
    timeout_s = _seconds(timeout)
    _act(context, rollout, "rollback", reason, as_json=as_json)
    if watch:
        with connect(context) as client:
            _watch(client, rollout, timeout_s=timeout_s, as_json=as_json, good="rolled_back")


def _start(context: typer.Context, body: dict[str, Any], *, watch: bool, as_json: bool) -> None:
    with connect(context) as client:
        rollout = client.post("/rollouts", body)
        if not as_json:
            lines(f"{rollout['id']}: {rollout['reason'] or rollout['state']}")
        elif not watch:
            print_json(rollout)
        if watch:
            _watch(client, rollout["id"], timeout_s=None, as_json=as_json)


def _act(context: typer.Context, rollout: str, action: str, reason: str, *, as_json: bool) -> None:
    path = at("rollouts", rollout)
    with connect(context) as client:
        answer = client.change("POST", f"{path}/{action}", path, {"reason": reason})
    if as_json:
        print_json(answer)
    else:
        lines(f"{answer['id']} is {answer['state']}: {answer['reason']}")


def _watch(client: Client, rollout: str, *, timeout_s: float | None, as_json: bool, good: str = "completed") -> None:
    """Print each change until the end; exit code 0 when it ends as `good`, 3 when not, or when a rollback's time is up."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    tick, last = threading.Event(), None
    while True:
        one = _patiently(lambda: client.get(at("rollouts", rollout)), tick)
        seen = (one["state"], one["wave"], one["reason"], one["devices"])
        if seen != last:
            _print_change(one, as_json=as_json)
        if one["state"] in _ENDED:
            raise typer.Exit(ExitCode.OK if one["state"] == good else ExitCode.NOT_MET)
        if deadline is not None and time.monotonic() > deadline:
            if good == "rolled_back":
                raise typer.Exit(ExitCode.NOT_MET)
            raise UsageError("conflict", f"{rollout} is still {one['state']} after the time given")
        last = seen
        tick.wait(_POLL_S)


def _patiently(ask: Callable[[], dict[str, Any]], tick: threading.Event) -> dict[str, Any]:
    """The answer, also when the server is away for a while (a restart)."""
    limit = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return ask()
        except TransferError:
            if time.monotonic() > limit:
                raise
            tick.wait(_POLL_S)


def _print_change(one: dict[str, Any], *, as_json: bool) -> None:
    """One line per change: a JSON object for programs, a sentence for people."""
    if as_json:
        keys = ("id", "model", "version", "state", "wave", "waves", "reason", "devices")
        print(json.dumps({key: one[key] for key in keys}, ensure_ascii=False), flush=True)
        return
    wave = f"wave {min(one['wave'] + 1, one['waves'])}/{one['waves']}"
    lines(f"{clock.now():%H:%M:%S}  {one['state']:<12} {wave}  {_counts(one['devices'])}  {one['reason']}")


def _show(one: dict[str, Any]) -> None:
    now = clock.now()
    lines(
        f"{one['id']}: {one['model']} {one['version']} is {one['state']}",
        one["reason"],
        f"by {one['created_by']}, made {ago(one['created_at'], now)}",
    )
    table(
        ["wave", "name", "state", "devices#", "started", "finished"],
        [
            (w["number"] + 1, w["name"], w["state"], w["size"], ago(w["started_at"], now), ago(w["finished_at"], now))
            for w in one["wave_list"]
        ],
        empty="It has no waves yet.",
    )
    table(
        ["device", "wave#", "class", "site", "state", "before#", "code", "why"],
        [
            (
                d["device"],
                w["number"] + 1,
                d["class"],
                d["site"],
                d["state"],
                d["previous_version"] or None,
                d["code"],
                d["reason"],
            )
            for w in one["wave_list"]
            for d in w["devices"]
        ],
        empty="It has no devices yet.",
    )
    table(
        ["when", "wave#", "verdict", "gate"],
        [(ago(g["at"], now), g["wave"] + 1, g["verdict"], g["sentence"]) for g in one["gates"]],
        empty="The gate has decided nothing yet.",
    )


def _counts(devices: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(devices.items()))


def _policy(base: dict[str, Any], *, baseline: str | None, **fields: Any) -> dict[str, Any]:
    policy = dict(base)
    for name, value in _given(**fields).items():
        policy[name] = {**policy.get(name, {}), **value} if isinstance(value, dict) else value
    if baseline is not None:
        policy["baseline_blocks"] = parse_baseline(baseline, float(policy.get("block_s", 900.0)))
    return policy


def _policy_file(path: Path | None) -> dict[str, Any]:
    try:
        policy = {} if path is None else json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError("invalid", f"{path} is no JSON file: {error}") from error
    if not isinstance(policy, dict):
        raise UsageError("invalid", f"{path} holds no JSON object")
    return policy


def _seconds(text: str | None) -> float | None:
    return None if text is None else parse_duration(text)


def _idle_after(text: str | None) -> dict[str, Any]:
    return {} if text is None else {"idle_after": None if text == "off" else parse_duration(text)}


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None and value != {}}
