"""`wavegate demo`: the whole loop on this machine, judged. Exit code 0 only when every promise held."""

import base64
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape

from wavegate_server.cli.compress.command import print_comparison
from wavegate_server.cli.output import ExitCode, lines, table
from wavegate_server.demo.processes import Processes
from wavegate_server.demo.promises import MODEL, SECOND, DeviceFacts, Facts, Promise, judge
from wavegate_server.demo.traffic import DeviceStats, VersionStats
from wavegate_shared.errors import UsageError
from wavegate_shared.histogram import Histogram

__all__ = ["demo"]

_MARK = ".wavegate-demo"
_MODELS = Path(__file__).resolve().parents[3] / "deploy" / "models"
_BUNDLE, _SECOND_BUNDLE = _MODELS / "address-match" / "bundle", _MODELS / "fashion" / "bundle"


def demo(
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the result as JSON to this file.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running for a look; Ctrl-C ends it.")] = False,
    directory: Annotated[
        Path | None, typer.Option(help="Work below this directory instead of a temporary one.", file_okay=False)
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete what an earlier demo left in --directory, and start anew.")
    ] = False,
    bundle: Annotated[Path, typer.Option(help="The original's bundle.", exists=True, file_okay=False)] = _BUNDLE,
    devices: Annotated[
        int, typer.Option(help="How many devices; fewer need less memory and processor time.", min=2, max=8)
    ] = 8,
    rate: Annotated[float, typer.Option(help="Requests per second and device.", min=1, max=50)] = 10.0,
    facts: Annotated[
        Path | None, typer.Option(help="Run nothing: judge the facts an earlier run wrote with --json.", exists=True)
    ] = None,
) -> None:
    """Run the whole life of a model version on this machine: server, broker, devices, four versions.

    v1 is rolled out to all, then a second model to the gateways; v2 is compressed on the spot and promoted; v3 is refused by the canary; v4 passes every check
    but is caught by the gate and rolled back. Every request of the traffic generator is counted.

    Example: wavegate demo --keep
    """
    if facts is not None:
        raise typer.Exit(conclude(msgspec.json.decode(facts.read_bytes(), type=Result).facts, 0.0, json_file))
    with _workplace(directory, fresh=fresh) as work:
        raise typer.Exit(_run(work, bundle, rate, json_file, device_count=devices, keep=keep))


class DeviceResult(msgspec.Struct):
    """One device in the JSON result."""

    id: str
    hardware_class: str = msgspec.field(name="class")
    site: str
    versions: list[int]
    served: int
    dropped: int
    bytes_fetched: int


class Result(msgspec.Struct):
    """The JSON result; `facts` are what the promises were judged from."""

    ok: bool
    seconds: float
    promises: list[Promise]
    devices: list[DeviceResult]
    facts: Facts


@contextmanager
def _workplace(directory: Path | None, *, fresh: bool) -> Iterator[Path]:
    """The given directory, which stays, or a temporary one. Paths must be short: socket names end at 107 bytes.

    Raises:
        UsageError: `conflict`, when an earlier demo used the directory and `fresh` does not ask to delete what it left, or
            when other files are there.
    """
    if directory is None:
        with tempfile.TemporaryDirectory(prefix="wavegate-", ignore_cleanup_errors=True) as scratch:
            yield Path(scratch)
    else:
        _claim(directory, fresh=fresh)
        yield directory.resolve()


def _claim(directory: Path, *, fresh: bool) -> None:
    """Make the directory a demo's own: empty but for the mark by which a later demo knows it."""
    directory.mkdir(parents=True, exist_ok=True)
    mark = directory / _MARK
    if mark.is_file() and fresh:
        for entry in directory.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    elif mark.is_file():
        detail = f"{directory} was used by an earlier demo: choose another --directory, or start anew with --fresh"
        raise UsageError("conflict", detail)
    elif any(directory.iterdir()):
        raise UsageError("conflict", f"{directory} holds other files: choose an empty or a new --directory")
    mark.write_text(
        "A directory of `wavegate demo`. With --fresh a later demo deletes everything here.\n", encoding="utf-8"
    )


def _run(work: Path, bundle: Path, rate: float, json_file: Path | None, *, device_count: int, keep: bool) -> int:
    """Play all acts; whatever happens, no process is left."""
    from wavegate_server.demo.applications import applications, write_images
    from wavegate_server.demo.fleet import DEVICES, Fleet
    from wavegate_server.demo.story import Story, collect

    signal.signal(signal.SIGTERM, _interrupt)
    started, devices = time.monotonic(), DEVICES[:device_count]
    console = Console(highlight=False)

    def say(text: str) -> None:
        console.print(f"{time.monotonic() - started:6.1f} s  {escape(text)}", soft_wrap=True)

    with Processes(work / "logs") as processes:
        fleet = Fleet(work, processes)
        story = Story(fleet, bundle=bundle, second=_SECOND_BUNDLE, directory=work / "bundles", say=say)
        try:
            say("starting the server (HTTPS API, dashboard) and the broker")
            say(f"server: {fleet.start_server()}")
            fleet.bring_up(devices, say)
            images = write_images(_SECOND_BUNDLE / "eval.npz", work / "images.jsonl")
            pairs = bundle.parent / "traffic.jsonl"
            fleet.start_traffic(applications(fleet, devices, pairs=pairs, images=images, rate_per_s=rate))
            acts = (story.v1_to_all, story.second_model, story.v2_promoted, story.v3_refused, story.v4_rolled_back)
            for act in acts:
                act()
            if not keep:
                fleet.stop_traffic()
            facts, traffic = collect(fleet, story.act, devices), fleet.traffic()
            print_comparison(story.comparison)
            print_devices(facts, traffic)
            print_second(facts, traffic)
            code = conclude(facts, time.monotonic() - started, json_file)
            lines(f"dashboard: {fleet.login_url if keep else fleet.url}")
            if keep:
                lines("still running; Ctrl-C ends it")
                threading.Event().wait()
        except KeyboardInterrupt:
            lines("ending all processes")
            return ExitCode.OK if keep else ExitCode.FAILURE
    return code


def print_devices(facts: Facts, traffic: dict[str, DeviceStats]) -> None:
    """The closing table: what each device went through, as the applications on it saw it."""
    columns = ("device", "class", "site", "versions", "p50 ms v1>v2#", "p99 ms v1>v2#", "accuracy v1>v2#")
    rows = []
    for device in facts.devices:
        stats = traffic.get(f"{device.id}/{MODEL}", DeviceStats())
        history = ">".join(str(version) for version in device.proved_itself if device.idle) + " idle"
        history = ">".join(str(version) for version in device.versions) or history
        shown = [_pair(stats, partial(_quantile, q=q)) for q in (0.5, 0.99)]
        accuracy = _pair(stats, lambda s: f"{s.correct / s.served:.1%}" if s.served else "-")
        counts = (f"{device.bytes_fetched / 1e6:.2f}", device.served, device.dropped)
        rows.append((device.id, device.hardware_class, device.site, history, *shown, accuracy, *counts))
    table((*columns, "MB fetched#", "served#", "dropped#"), rows, empty="no device")


def print_second(facts: Facts, traffic: dict[str, DeviceStats]) -> None:
    """What the second model answered, on the devices that have it."""
    rows = []
    for device in facts.devices:
        if device.second is None:
            continue
        stats = traffic.get(f"{device.id}/{SECOND}", DeviceStats())
        for version, one in stats.versions.items():
            shown = (
                f"{SECOND} v{version}",
                _quantile(one, 0.5),
                _quantile(one, 0.99),
                f"{one.correct / one.served:.1%}",
            )
            rows.append((device.id, *shown, one.served, device.second.dropped))
    columns = ("device", "beside it", "p50 ms#", "p99 ms#", "accuracy#", "served#", "dropped#")
    table(columns, rows, empty="no second model")


def conclude(facts: Facts, seconds: float, json_file: Path | None) -> int:
    """Print and write the promises; the exit code: 0 only when each of them held."""
    promises = judge(facts)
    for promise in promises:
        figure = "-" if promise.figure is None else f"{promise.figure:g}"
        lines(f"{'held  ' if promise.held else 'BROKEN'}  {promise.name} ({figure})")
    ok = all(promise.held for promise in promises)
    if json_file is not None:
        result = Result(ok, round(seconds, 1), promises, [_device(device) for device in facts.devices], facts)
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1))
    return ExitCode.OK if ok else ExitCode.FAILURE


def _device(device: DeviceFacts) -> DeviceResult:
    return DeviceResult(
        id=device.id,
        hardware_class=device.hardware_class,
        site=device.site,
        versions=device.versions,
        served=device.served,
        dropped=device.dropped,
        bytes_fetched=device.bytes_fetched,
    )


def _pair(stats: DeviceStats, show: Callable[[VersionStats], str]) -> str:
    return " > ".join(show(stats.versions[version]) if version in stats.versions else "-" for version in ("1", "2"))


def _quantile(stats: VersionStats, q: float) -> str:
    value = Histogram.decode(base64.b64decode(stats.latency)).quantile(q)
    return "-" if value is None else f"{value:.1f}"


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
