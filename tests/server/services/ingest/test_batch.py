"""One transaction: each message counts once, and a bad one counts against nobody else."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.support.ingest import NOW, Handlers, Keys, database, hello, report, rows, state, window
from wavegate_server.adapters.database.tables import (
    Device,
    DeviceEvent,
    DeviceRollup,
    FleetRollup,
    Revision,
    TelemetryWindow,
    Watermark,
)
from wavegate_server.adapters.store.device_cache import DeviceCache
from wavegate_server.services.ingest.batch import BatchWriter, Written
from wavegate_server.services.ingest.inbox import Message
from wavegate_shared.errors import TrustError
from wavegate_shared.histogram import Histogram
from wavegate_shared.wire import Up, encode


class World:
    def __init__(self, directory: Path) -> None:
        self.keys = Keys()
        self.engine: Engine = database(
            directory, {"dev-1": "active", "dev-2": "active", "dev-gone": "revoked"}, keys=self.keys
        )
        self.handlers = Handlers()
        self.writer = BatchWriter(self.engine, DeviceCache(self.engine), self.handlers, lambda: NOW)

    def write(self, *messages: tuple[str, Up | bytes]) -> Written:
        return self.writer.write(
            [Message(device, up if isinstance(up, bytes) else encode(up), lambda: None) for device, up in messages]
        )

    def marks(self) -> dict[str, tuple[int, int]]:
        return {each.device_id: (each.boot, each.seq) for each in rows(self.engine, Watermark)}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_windows_become_rows_rollups_and_a_watermark(world: World) -> None:
    written = world.write(*[("dev-1", window(seq)) for seq in (1, 2, 3)], ("dev-2", window(1)))
    assert written.stored == 4
    assert written.answers == {"dev-1": (1, 3), "dev-2": (1, 1)}
    assert len(rows(world.engine, TelemetryWindow)) == 4
    assert world.marks() == {"dev-1": (1, 3), "dev-2": (1, 1)}
    day = [each for each in rows(world.engine, FleetRollup) if each.level == 86400]
    assert [(each.requests, each.errors, each.score_count) for each in day] == [(16, 4, 16)]
    assert Histogram.decode(day[0].latency).count == 16
    assert rows(world.engine, Revision)[0].value == 1


def test_what_came_before_counts_once_in_any_later_batch(world: World) -> None:
    world.write(("dev-1", window(1)), ("dev-1", window(2)))
    again = world.write(("dev-1", window(1)), ("dev-1", window(2)), ("dev-1", window(3)), ("dev-1", window(3)))
    assert (again.stored, again.duplicates) == (1, 3)
    assert again.answers == {"dev-1": (1, 3)}
    assert sorted(each.start for each in rows(world.engine, TelemetryWindow)) == [
        int(NOW.timestamp() * 1000) + seq * 60_000 for seq in (1, 2, 3)
    ]
    hours = [each for each in rows(world.engine, DeviceRollup) if each.level == 3600]
    assert [(each.requests, each.cpu_ms) for each in hours] == [(12, 60.0)]


def test_rollups_grow_over_batches_as_if_it_had_been_one(world: World, tmp_path: Path) -> None:
    other = World(_made(tmp_path / "other"))
    everything = [("dev-1", window(seq)) for seq in range(1, 130)]
    other.write(*everything)
    for start in range(0, len(everything), 7):
        world.write(*everything[start : start + 7])
    for table in (DeviceRollup, FleetRollup):
        piecemeal, at_once = (
            sorted((each.model_dump() for each in rows(engine, table)), key=lambda row: (row["level"], row["bucket"]))
            for engine in (world.engine, other.engine)
        )
        assert piecemeal == at_once


def test_a_new_boot_counts_from_one_again(world: World) -> None:
    world.write(("dev-1", window(9)))
    world.write(("dev-1", window(1, boot=2)))
    assert world.marks() == {"dev-1": (2, 1)}
    assert len(rows(world.engine, TelemetryWindow)) == 2


def test_states_and_hellos_go_to_the_handlers_new_ones_only(world: World) -> None:
    world.write(("dev-1", hello()), ("dev-1", state(1)), ("dev-1", state(1)), ("dev-1", window(2)))
    assert [type(message).__name__ for _, message in world.handlers.applied] == ["Hello", "StateEvent"]


def test_a_hello_is_answered_with_what_need_not_be_sent_again(world: World) -> None:
    world.write(("dev-1", window(5)))
    assert world.write(("dev-1", hello())).answers == {"dev-1": (1, 5)}


@pytest.mark.parametrize(
    "bad",
    [b"", b"\x02zstd", b"\x01{", encode(window(2, latency=b"?")), encode(window(2, seconds=0.0)), b"\x01" + b"9" * 50],
)
def test_a_malformed_message_leaves_its_neighbours_alone(world: World, bad: bytes) -> None:
    written = world.write(("dev-1", window(1)), ("dev-1", bad), ("dev-1", window(3)), ("dev-2", window(1)))
    assert [(device, code) for device, code, _ in written.refused] == [("dev-1", "message_malformed")]
    assert len(rows(world.engine, TelemetryWindow)) == 3
    assert world.marks() == {"dev-1": (1, 3), "dev-2": (1, 1)}


def test_a_refused_window_is_passed_over_so_that_it_is_not_sent_for_ever(world: World) -> None:
    world.write(("dev-1", window(1, requests=2**40)))
    assert world.marks() == {"dev-1": (1, 1)}
    assert rows(world.engine, TelemetryWindow) == []


def test_a_device_unknown_or_revoked_is_not_heard(world: World) -> None:
    written = world.write(("dev-gone", window(1)), ("nobody", window(1)), ("dev-1", window(1)))
    assert written.unknown == ["dev-gone", "nobody"]
    assert {each.device_id for each in rows(world.engine, TelemetryWindow)} == {"dev-1"}


def test_a_report_with_the_devices_signature_reaches_the_handlers(world: World) -> None:
    world.write(("dev-1", report(world.keys, "dev-1", 1)))
    assert len(world.handlers.applied) == 1


@pytest.mark.parametrize("case", ["foreign key", "other device", "other number"])
def test_a_forged_report_reaches_nobody_and_stands_in_the_event_log(world: World, case: str) -> None:
    message, code = {
        "foreign key": (report(Keys(), "dev-1", 1), "signature_invalid"),
        "other device": (report(world.keys, "dev-2", 1), "wrong_device"),
        "other number": (report(world.keys, "dev-1", 1, outer_seq=2), "message_malformed"),
    }[case]
    written = world.write(("dev-1", message))
    assert [each[1] for each in written.refused] == [code]
    assert world.handlers.applied == []
    assert [(each.kind, each.code) for each in rows(world.engine, DeviceEvent)] == [("server", code)]


def test_what_a_handler_wrote_before_it_refused_is_undone_alone(world: World) -> None:
    def refuse(_message: object) -> None:
        raise TrustError("message_malformed", "no such slot")

    world.handlers.fail = refuse
    written = world.write(("dev-1", window(1)), ("dev-1", state(2)), ("dev-1", window(3)))
    assert len(written.refused) == 1
    assert len(rows(world.engine, TelemetryWindow)) == 2


def test_when_anything_breaks_nothing_is_stored(world: World) -> None:
    def fail(_message: object) -> None:
        raise RuntimeError("a bug")

    world.handlers.fail = fail
    with pytest.raises(RuntimeError):
        world.write(("dev-1", window(1)), ("dev-1", state(2)))
    assert rows(world.engine, TelemetryWindow) == []
    assert world.marks() == {}


def test_a_message_that_cannot_be_stored_can_be_passed_over(world: World) -> None:
    world.writer.skip(Message("dev-1", encode(state(4)), lambda: None))
    world.writer.skip(Message("dev-1", encode(state(2)), lambda: None))
    world.writer.skip(Message("dev-1", b"garbage", lambda: None))
    assert world.marks() == {"dev-1": (1, 4)}


def test_a_device_that_spoke_was_seen(world: World) -> None:
    world.write(("dev-1", window(1)))
    seen = {each.id: each.last_seen for each in rows(world.engine, Device)}
    assert seen == {"dev-1": NOW, "dev-2": None, "dev-gone": None}


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory
