"""The command's side of a device round, against a real server over TLS; the device's words are the test's."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from tests.support.api_server import Api
from tests.support.bench_world import CLASS, DEVICE, BenchWorld, bench_world
from tests.support.cli import Cli
from wavegate_server.cli.compress.device_round import ApiRound
from wavegate_server.cli.main import build_app
from wavegate_server.compress.search.device_round import DeviceFigures
from wavegate_shared.errors import TransferError, UsageError, WavegateError

TICKS = 400


@pytest.fixture
def world(api: Api, cli: Cli, tmp_path: Path) -> Iterator[BenchWorld]:
    with bench_world(api, tmp_path / "bundles") as made:
        yield made


def context() -> typer.Context:
    return typer.Context(typer.main.get_command(build_app()))


def measure(world: BenchWorld, hardware_class: str = CLASS) -> DeviceFigures:
    """Ask on a thread, and be the engine and the device meanwhile. Raises what asking raised."""
    done: list[DeviceFigures | WavegateError] = []

    def ask() -> None:
        there = ApiRound(context(), hardware_class)
        try:
            paths = world.bundles["original"], {"int8-dynamic": world.bundles["small"]}
            done.append(there.measure(*paths, lambda *_: None))
        except WavegateError as error:
            done.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    for _ in range(TICKS):
        if done:
            break
        world.tick()
        rounds = world.api.client.get("/api/v1/bench-rounds").json()["items"]
        if rounds and "sent" in world.states(rounds[0]["id"]):
            world.report()
        thread.join(0.05)
    thread.join()
    if isinstance(done[0], WavegateError):
        raise done[0]
    return done[0]


def test_candidates_go_up_and_figures_come_back(world: BenchWorld) -> None:
    figures = measure(world)
    assert (figures.place, figures.problem) == (f"{DEVICE}, class {CLASS}", "")
    assert figures.rows["int8-dynamic"].p50_ms == 2.0


def test_a_class_without_a_bench_device_is_told_the_command(world: BenchWorld) -> None:
    with pytest.raises(UsageError, match="wavegate device token ID --class pi4 --site SITE --bench"):
        measure(world, "pi4")


def test_without_a_server_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WAVEGATE_SERVER", "WAVEGATE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WAVEGATE_DATA_DIR", str(tmp_path))
    with pytest.raises(UsageError, match="no server is set up"):
        ApiRound(context(), CLASS).measure(tmp_path, {}, lambda *_: None)


def test_a_server_that_is_away_is_said(world: BenchWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAVEGATE_SERVER", "https://localhost:1")
    with pytest.raises(TransferError, match="cannot reach"):
        measure(world)
