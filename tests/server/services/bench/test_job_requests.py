"""A job's process asks for a round by a file and gets its figures by another, whatever happens to either side between."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.api_server import Api
from tests.support.bench_world import CLASS, DEVICE, BenchWorld, bench_world
from wavegate_server.compress.round_by_files import RoundByFiles
from wavegate_server.compress.search.device_round import DeviceFigures
from wavegate_server.services.bench.job_requests import JobRequests
from wavegate_shared.errors import UsageError

WAIT_S = 20.0


@pytest.fixture
def world(api: Api, tmp_path: Path) -> Iterator[BenchWorld]:
    with bench_world(api, tmp_path / "bundles") as made:
        yield made


class Asking:
    """A job's process in the middle of its device round, on a thread."""

    def __init__(self, world: BenchWorld, place: Path, hardware_class: str = CLASS) -> None:
        self.figures: DeviceFigures | None = None
        self.error: UsageError | None = None
        self._round = RoundByFiles(place, hardware_class)
        self._paths = (world.bundles["original"], {"small": world.bundles["small"]})
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.figures = self._round.measure(*self._paths, lambda *_: None)
        except UsageError as error:
            self.error = error

    def served(self, world: BenchWorld, place: Path, *, fresh: bool = False) -> None:
        """The server looks, the engine ticks, the device reports, until the job has its answer."""
        context = world.api.context
        box = JobRequests(context.engine, context.objects, now=world.clock)
        waited = threading.Event()
        for _ in range(int(WAIT_S / 0.05)):
            if self.done:
                return
            box = JobRequests(context.engine, context.objects, now=world.clock) if fresh else box
            box.look(place, "compress job 1")
            world.tick()
            rounds = world.api.client.get("/api/v1/bench-rounds").json()["items"]
            if rounds and "sent" in world.states(rounds[0]["id"]):
                world.report()
            waited.wait(0.05)
        raise AssertionError("no answer came")


@pytest.mark.parametrize("fresh", [False, True], ids=["one server", "a server killed at every step"])
def test_a_job_gets_its_figures(world: BenchWorld, tmp_path: Path, fresh: bool) -> None:
    asking = Asking(world, tmp_path / "round")
    asking.served(world, tmp_path / "round", fresh=fresh)
    assert asking.figures is not None
    assert (asking.figures.place, asking.figures.problem) == (f"{DEVICE}, class {CLASS}", "")
    assert asking.figures.rows["small"].p50_before == 4.0
    assert len(world.api.client.get("/api/v1/bench-rounds").json()["items"]) == 1


def test_a_class_without_a_device_is_said_with_the_command(world: BenchWorld, tmp_path: Path) -> None:
    asking = Asking(world, tmp_path / "round", "pi4")
    asking.served(world, tmp_path / "round")
    assert asking.error is not None
    assert "wavegate device token ID --class pi4 --site SITE --bench" in asking.error.detail


def test_the_round_of_a_cancelled_job_ends(world: BenchWorld, tmp_path: Path) -> None:
    place = tmp_path / "round"
    context = world.api.context
    box = JobRequests(context.engine, context.objects, now=world.clock)
    asking = Asking(world, place)
    for _ in range(400):
        if (place / "request.json").exists():
            break
        threading.Event().wait(0.01)
    box.look(place, "compress job 1")
    world.tick()
    box.end(place, "compress job 1")
    (shown,) = world.api.client.get("/api/v1/bench-rounds").json()["items"]
    assert (shown["state"], shown["reason"]) == ("cancelled", "cancelled by compress job 1")
    asking.served(world, place)
    assert asking.figures is not None
    assert asking.figures.problem == "cancelled by compress job 1"


def test_half_a_file_is_none(world: BenchWorld, tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text('{"id": "1", "cl')
    box = JobRequests(world.api.context.engine, world.api.context.objects, now=world.clock)
    box.look(tmp_path, "compress job 1")
    assert not (tmp_path / "answer.json").exists()
