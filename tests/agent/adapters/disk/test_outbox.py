"""The outbox: in order, kept until stored, bounded, and harmless when lost."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from wavegate_agent.adapters.disk.outbox import Kind, Outbox
from wavegate_agent.core.live_stats import LiveStats
from wavegate_agent.core.windows import window_of
from wavegate_shared.histogram import Histogram
from wavegate_shared.wire import Window, decode_up, encode

T0 = datetime(2026, 3, 1, tzinfo=UTC)


def put_window(outbox: Outbox, requests: int = 10) -> None:
    latency = Histogram()
    latency.add(5.0, requests)

    def make(boot: int, seq: int) -> bytes:
        stats = LiveStats(1, "m", requests, 0, latency)
        return encode(
            window_of(stats, boot=boot, seq=seq, slot="main", start=T0 + timedelta(seconds=seq), seconds=60.0)
        )

    outbox.put(Kind.WINDOW, make)


def requests_waiting(outbox: Outbox) -> int:
    windows = [decode_up(m.payload) for m in outbox.waiting((0, 0), 10_000) if m.kind == Kind.WINDOW]
    return sum(w.requests for w in windows if isinstance(w, Window))


def test_messages_come_in_order_and_go_when_stored(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    outbox.start(4)
    for kind in (Kind.STATE, Kind.REPORT, Kind.STATE):
        outbox.put(kind, lambda boot, seq: b"%d/%d" % (boot, seq))
    assert [m.payload for m in outbox.waiting((0, 0))] == [b"4/1", b"4/2", b"4/3"]
    assert [m.seq for m in outbox.waiting((4, 1))] == [2, 3]
    outbox.stored((4, 2))
    assert [m.seq for m in outbox.waiting((0, 0))] == [3]
    outbox.close()


def test_numbers_go_on_after_a_restart(tmp_path: Path) -> None:
    first = Outbox(tmp_path / "outbox.db")
    first.start(4)
    first.put(Kind.REPORT, lambda *_: b"x")
    first.close()
    second = Outbox(tmp_path / "outbox.db")
    assert second.boot == 4
    second.start(5)
    assert second.put(Kind.REPORT, lambda *_: b"y") == 1
    assert [(m.boot, m.seq) for m in second.waiting((0, 0))] == [(4, 1), (5, 1)]
    second.close()


def test_weeks_offline_become_coarser_and_lose_no_count(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db", max_windows=16)
    outbox.start(1)
    for _ in range(100):
        put_window(outbox)
    assert len(outbox) <= 16
    assert requests_waiting(outbox) == 1000
    assert [m.seq for m in outbox.waiting((0, 0), 99)] == sorted(m.seq for m in outbox.waiting((0, 0), 99))
    outbox.close()


def test_what_was_sent_once_is_never_merged(tmp_path: Path) -> None:
    """It may have been counted already; merging it with something new would count it twice or lose the new one."""
    outbox = Outbox(tmp_path / "outbox.db", max_windows=8)
    outbox.start(1)
    for _ in range(4):
        put_window(outbox)
    outbox.sent((1, 4))
    for _ in range(5):
        put_window(outbox)
    assert [m.seq for m in outbox.waiting((0, 0), 99)][:4] == [1, 2, 3, 4]
    outbox.close()


def test_reports_outlive_everything(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db", max_windows=4, max_states=4)
    outbox.start(1)
    outbox.put(Kind.REPORT, lambda *_: b"report")
    for _ in range(50):
        outbox.put(Kind.STATE, lambda *_: b"state")
        put_window(outbox)
    kinds = [m.kind for m in outbox.waiting((0, 0), 99)]
    assert kinds.count(Kind.REPORT) == 1
    assert kinds.count(Kind.STATE) == 4
    outbox.close()


@pytest.mark.parametrize("content", [b"", b"no database at all" * 300])
def test_a_damaged_file_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "outbox.db").write_bytes(content)
    outbox = Outbox(tmp_path / "outbox.db")
    outbox.start(1)
    assert outbox.put(Kind.REPORT, lambda *_: b"x") == 1
    outbox.close()


def test_a_disk_that_refuses_keeps_messages_in_memory(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    outbox.start(1)
    outbox.put(Kind.REPORT, lambda *_: b"before")
    outbox._db.execute("PRAGMA query_only = ON")
    outbox.put(Kind.REPORT, lambda *_: b"after")
    assert [m.payload for m in outbox.waiting((0, 0))] == [b"before", b"after"]
    outbox.close()


def test_what_was_said_is_noted(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    outbox.say("main", "1 proven None")
    outbox.say("main", "2 proven None")
    assert (outbox.said("main"), outbox.said("second")) == ("2 proven None", "")
    outbox.close()
