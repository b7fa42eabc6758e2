"""Messages between agent and workers."""

import msgspec
import pytest

from wavegate_agent.core import link
from wavegate_agent.core.live_stats import LiveStats
from wavegate_shared.wire import GoldenResult

CALLS: list[link.Call] = [
    link.Load(call=1, directory="/d", intra_threads=1, concurrency=2, memory_limit_mb=64, check_digests=False),
    link.Golden(call=2),
    link.BenchRun(call=3, sample=4, force=True),
    link.Promote(call=5),
    link.Serve(call=6, peer=True),
    link.HandOver(call=7),
    link.Collect(call=8),
    link.Stop(call=9),
]
REPLIES: list[link.Reply] = [
    link.Done(call=1, text="x", left=2, bench=link.BenchSample(ran=True, wall_ms=1.5)),
    link.Done(call=1, golden=GoldenResult(passed=True, value=1.0, limit=0.9, samples=3)),
    link.Failed(call=2, code="load_failed", detail="why"),
    link.Stats(call=0, versions=[link.to_counts(LiveStats(version=2, model="m"))]),
]
WORDS: list[link.Peer] = [
    link.RingFile(),
    link.RingPart(b"x"),
    link.Connections([(1, b"GET"), (2, b"")]),
    link.Sent(1, 2),
    link.Claim(3),
    link.Complete(4),
]


def test_every_message_is_read_back() -> None:
    assert [link.decode_call(link.encode(call)) for call in CALLS] == CALLS
    assert [link.decode_reply(link.encode(reply)) for reply in REPLIES] == REPLIES
    assert [link.decode_peer(link.encode(word)) for word in WORDS] == WORDS


def test_a_message_of_the_other_direction_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        link.decode_reply(link.encode(link.Golden(call=1)))


def test_counts_keep_their_latencies() -> None:
    stats = LiveStats(version=7, model="m", errors=1, score_sum=0.5, score_count=2, cpu_ms=3.0, rss_mb=9.0)
    stats.count(12.5, failed=False)
    assert link.from_counts(link.to_counts(stats)) == stats
