"""`wavegate device ...`: register and enrol, list, look at, explain, shut out."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from wavegate_server.adapters import clock
from wavegate_server.cli.client import connect
from wavegate_server.cli.device_lifecycle import reissue, replace
from wavegate_server.cli.output import JsonFlag, ago, figure, lines, megabytes, print_json, table
from wavegate_server.cli.parse import parse_labels
from wavegate_server.client import Client, at
from wavegate_server.core.advice import Refused
from wavegate_shared.errors import UsageError

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")

DeviceId = Annotated[str, typer.Argument(metavar="ID", help="The device's id.", show_default=False)]
ClassOption = Annotated[str | None, typer.Option("--class", help="Hardware class, as edge-a.")]
SiteOption = Annotated[str | None, typer.Option(help="Where it stands, as berlin.")]
LabelOption = Annotated[list[str] | None, typer.Option("--label", help="Label, as ring=early; may be repeated.")]
BenchOption = Annotated[
    bool, typer.Option("--bench", help="Enrol it for benching: it measures candidates beside what it serves.")
]


@app.command()
def create(
    context: typer.Context,
    device: DeviceId,
    hardware_class: Annotated[str, typer.Option("--class", help="Hardware class, as edge-a.", show_default=False)],
    site: Annotated[str, typer.Option(help="Where it stands, as berlin.", show_default=False)],
    label: LabelOption = None,
    bench: BenchOption = False,
    as_json: JsonFlag = False,
) -> None:
    """Register a device and make its one-time enrolment token.

    Example: wavegate device create kiosk-1 --class edge-a --site berlin
    """
    with connect(context) as client:
        answer = _create(client, device, hardware_class, site, label, bench=bench)
    if as_json:
        print_json(answer)
    else:
        _print_token(answer["token"])


@app.command()
def token(
    context: typer.Context,
    device: DeviceId,
    hardware_class: ClassOption = None,
    site: SiteOption = None,
    label: LabelOption = None,
    bench: Annotated[
        bool | None,
        typer.Option(
            "--bench/--no-bench", help="Whether it measures candidates, from this enrolment on; else as it was."
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a one-time enrolment token; with --class and --site the device is registered first if it is new.

    A device measures candidates (--bench) from its next enrolment on: on one that is enrolled already run
    `wavegate-agent enroll --replace` with this token.

    Example: wavegate device token kiosk-1 --class edge-a --site berlin --bench
    """
    if (hardware_class is None) != (site is None):
        raise typer.BadParameter("give both --class and --site to register a new device, or none of them")
    with connect(context) as client:
        if hardware_class is not None and site is not None and not _exists(client, device):
            answer = _create(client, device, hardware_class, site, label, bench=bool(bench))["token"]
        else:
            if bench is not None:
                client.change("PATCH", at("devices", device), at("devices", device), {"bench": bench})
            answer = client.post(at("devices", device, "token"))
    if as_json:
        print_json(answer)
    else:
        _print_token(answer)


@app.command("list")
def list_devices(
    context: typer.Context,
    hardware_class: ClassOption = None,
    site: SiteOption = None,
    state: Annotated[str | None, typer.Option(help="pending, active or revoked.")] = None,
    health: Annotated[str | None, typer.Option(help="serving, updating, attention, empty, offline, ...")] = None,
    label: LabelOption = None,
    version: Annotated[str | None, typer.Option(help="Running version, as address-match:2.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List devices: health, version, latency and live accuracy of the last 30 minutes.

    Example: wavegate device list --site berlin --version address-match:2
    """
    model, number = _version(version)
    labels = [f"{key}:{value}" for key, value in parse_labels(label or []).items()]
    filters = {"class": hardware_class, "site": site, "state": state, "health": health, "label": labels}
    with connect(context) as client:
        devices = client.pages("/devices", **filters, model=model, version=number)
    if as_json:
        print_json({"items": devices})
        return
    now = clock.now()
    table(
        ["device", "class", "site", "bench", "health", "runs", "p50#", "p99#", "metric#", "seen"],
        [
            (
                d["id"],
                d["class"],
                d["site"],
                "bench" if d["bench"] else "",
                d["health"],
                _runs(d),
                figure(d["recent"]["p50_ms"], "ms"),
                figure(d["recent"]["p99_ms"], "ms"),
                figure(d["recent"]["score"]),
                ago(d["last_seen"], now),
            )
            for d in devices
        ],
        empty="No device fits. Register one: wavegate device create ID --class C --site S",
    )


@app.command()
def show(context: typer.Context, device: DeviceId, as_json: JsonFlag = False) -> None:
    """Show a device: what it runs, how it fares, how its assignments ended.

    Example: wavegate device show kiosk-1
    """
    with connect(context) as client:
        one = client.get(at("devices", device))
        reports = client.get(at("devices", device, "reports"), limit=20)["items"]
    if as_json:
        print_json({**one, "reports": reports})
        return
    now = clock.now()
    labels = ", ".join(f"{key}={value}" for key, value in one["labels"].items())
    lines(
        f"{one['id']}: {one['health']}, class {one['class']}, site {one['site']}" + (f", {labels}" if labels else ""),
        *(
            [f"ALERT: {one['cloned']} use its identity in turn; end it: wavegate device reissue {one['id']}"]
            if one["cloned"]
            else []
        ),
        *(["enrolled for benching: measures candidates beside what it serves"] if one["bench"] else []),
        f"runs {_runs(one)}; seen {ago(one['last_seen'], now)}",
        f"served {one['requests_served']} requests; p50 {figure(one['recent']['p50_ms'], 'ms')},"
        f" p99 {figure(one['recent']['p99_ms'], 'ms')} over 30 minutes; fetched {megabytes(one['bytes_fetched'])} in all",
    )
    table(
        ["when", "version", "ended", "code", "golden#", "served#", "fetched#", "rollout"],
        [
            (
                ago(r["at"], now),
                f"{r['model']} {r['version']}",
                r["outcome"],
                r["code"],
                figure(r["golden_value"]),
                r["served"],
                megabytes(r["bytes_fetched"]),
                r["rollout"],
            )
            for r in reports
        ],
        empty="It has reported nothing yet.",
    )


@app.command("remove-model")
def remove_model(
    context: typer.Context,
    device: DeviceId,
    model: Annotated[str, typer.Argument(help="Which of its models.")],
    reason: Annotated[str, typer.Option(help="Why, for the audit log.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Take a model away from a device, by a signed assignment; its other models are not touched.

    Example: wavegate device remove-model kiosk-1 fashion --reason "site is closed"
    """
    with connect(context) as client:
        answer = client.post(at("devices", device, "models", model, "remove"), {"reason": reason})
    if as_json:
        print_json(answer)
    else:
        lines(
            f"{model} is to be taken away from {device}; wavegate device why {device} --model {model} says how it goes"
        )


@app.command()
def why(
    context: typer.Context,
    device: DeviceId,
    model: Annotated[str | None, typer.Option(help="One of its models (default: the one that stands for it).")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say why a device runs the version it runs: assignment, its own report, gate, rollout.

    Example: wavegate device why kiosk-1
    """
    with connect(context) as client:
        answer = client.get(at("devices", device, "why"), model=model)
    if as_json:
        print_json(answer)
    else:
        now = clock.now()
        lines(*(f"{_when(step['at'], now):<36}{step['sentence']}" for step in answer["steps"]))


def _when(at: str | None, now: datetime) -> str:
    """`2026-03-01 12:00:30 UTC, 5 min ago`, at most 34 characters, or nothing where no time belongs to a reason."""
    return f"{datetime.fromisoformat(at).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC, {ago(at, now)}" if at else ""


@app.command()
def events(
    context: typer.Context,
    device: DeviceId,
    limit: Annotated[int, typer.Option(help="How many, newest first.", min=1, max=200)] = 30,
    as_json: JsonFlag = False,
) -> None:
    """Show a device's event log, newest first.

    Example: wavegate device events kiosk-1 --limit 10
    """
    with connect(context) as client:
        page = client.get(at("devices", device, "events"), limit=limit)
    if as_json:
        print_json(page)
        return
    now = clock.now()
    table(
        ["when", "kind", "version", "state", "code", "detail"],
        [
            (
                ago(e["at"], now),
                e["kind"],
                f"{e['model']} {e['version']}" if e["model"] else "",
                e["state"],
                e["code"],
                e["detail"],
            )
            for e in page["items"]
        ],
        empty="Nothing has happened yet.",
    )


@app.command()
def label(
    context: typer.Context,
    device: DeviceId,
    labels: Annotated[
        list[str],
        typer.Argument(metavar="KEY=VALUE...", help="Labels to set; KEY= takes one away.", show_default=False),
    ],
    as_json: JsonFlag = False,
) -> None:
    """Set or take away labels, by which rollouts choose devices.

    Example: wavegate device label kiosk-1 ring=early floor=
    """
    gone = [item for item in labels if item.endswith("=")]
    wanted: dict[str, str | None] = dict(parse_labels([item for item in labels if item not in gone]))
    wanted |= {item[:-1]: None for item in gone}
    with connect(context) as client:
        answer = client.change("PATCH", at("devices", device), at("devices", device), {"labels": wanted})
    if as_json:
        print_json(answer)
    else:
        lines(f"{device}: " + (", ".join(f"{k}={v}" for k, v in answer["labels"].items()) or "no labels"))


@app.command()
def revoke(
    context: typer.Context,
    device: DeviceId,
    reason: Annotated[str, typer.Option(help="Why, for the audit log.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Shut a device out for good: its certificate and its messages are refused.

    Example: wavegate device revoke kiosk-1 --reason stolen
    """
    with connect(context) as client:
        path = at("devices", device)
        answer = client.change("POST", f"{path}/revoke", path, {"reason": reason})
    if as_json:
        print_json(answer)
    else:
        lines(f"{device} is revoked.")


app.command()(reissue)
app.command()(replace)


def _create(
    client: Client, device: str, hardware_class: str, site: str, label: list[str] | None, *, bench: bool = False
) -> dict[str, Any]:
    body = {"id": device, "class": hardware_class, "site": site, "labels": parse_labels(label or []), "bench": bench}
    return client.post("/devices", body)


def _exists(client: Client, device: str) -> bool:
    try:
        client.get(at("devices", device))
    except Refused as refused:
        if refused.problem["code"] != "not_found":
            raise
        return False
    return True


def _print_token(answer: dict[str, Any]) -> None:
    typer.echo(answer["token"])  # alone on standard output, so that a script can take it
    typer.echo(
        f"One use, until {answer['expires_at']}. On the device: wavegate-agent enroll --token TOKEN --server URL",
        err=True,
    )


def _version(text: str | None) -> tuple[str | None, int | None]:
    if text is None:
        return None, None
    model, colon, number = text.partition(":")
    if not (model and colon and number.isdecimal()):
        raise UsageError("invalid", f"{text!r} is no version; write address-match:2")
    return model, int(number)


def _runs(device: dict[str, Any]) -> str:
    """Every model a device serves, with the version before it where one is kept ready."""
    serving = [slot for slot in device["slots"] if slot["version"]]
    named = [
        f"{slot['model']} {slot['version']}"
        + (f" (before that {slot['standby_version']})" if slot["standby_version"] else "")
        for slot in serving
    ]
    return ", ".join(named) or "nothing"
