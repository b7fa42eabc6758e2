"""Messages between agent and workers."""

import msgspec
import pytest

from wavegate_agent.core import worker_messages
from wavegate_agent.core.live_stats import LiveStats
from wavegate_shared.wire import GoldenResult

CALLS: list[worker_messages.Call] = [
    worker_messages.Load(
        call=1, directory="/d", intra_threads=1, concurrency=2, memory_limit_mb=64, check_digests=False
    ),
    worker_messages.Golden(call=2),
    worker_messages.BenchRun(call=3, sample=4, force=True),
    worker_messages.Promote(call=5),
    worker_messages.Serve(call=6, peer=True),
    worker_messages.HandOver(call=7),
    worker_messages.Collect(call=8),
    worker_messages.Stop(call=9),
]
REPLIES: list[worker_messages.Reply] = [
    worker_messages.Done(call=1, text="x", left=2, bench=worker_messages.BenchSample(ran=True, wall_ms=1.5)),
    worker_messages.Done(call=1, golden=GoldenResult(passed=True, value=1.0, limit=0.9, samples=3)),
    worker_messages.Failed(call=2, code="load_failed", detail="why"),
    worker_messages.Stats(call=0, versions=[worker_messages.to_counts(LiveStats(version=2, model="m"))]),
]
WORDS: list[worker_messages.Peer] = [
    worker_messages.RingFile(),
    worker_messages.RingPart(b"x"),
    worker_messages.Connections([(1, b"GET"), (2, b"")]),
    worker_messages.Sent(1, 2),
    worker_messages.Claim(3),
    worker_messages.Complete(4),
]


def test_every_message_is_read_back() -> None:
    assert [worker_messages.decode_call(worker_messages.encode(call)) for call in CALLS] == CALLS
    assert [worker_messages.decode_reply(worker_messages.encode(reply)) for reply in REPLIES] == REPLIES
    assert [worker_messages.decode_peer(worker_messages.encode(word)) for word in WORDS] == WORDS


def test_a_message_of_the_other_direction_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        worker_messages.decode_reply(worker_messages.encode(worker_messages.Golden(call=1)))


def test_counts_keep_their_latencies() -> None:
    stats = LiveStats(version=7, model="m", errors=1, score_sum=0.5, score_count=2, cpu_ms=3.0, rss_mb=9.0)
    stats.count(12.5, failed=False)
    assert worker_messages.from_counts(worker_messages.to_counts(stats)) == stats
