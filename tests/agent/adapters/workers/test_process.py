"""One worker process as the agent sees it."""

import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.models import linear_version
from wavegate_agent.adapters.workers.process import WorkerProcess
from wavegate_agent.core.worker_messages import Done, Failed, Golden, Load, Reply, Stats, Stop
from wavegate_shared.errors import DeviceError


@pytest.fixture
def process(tmp_path: Path) -> Iterator[WorkerProcess]:
    made = WorkerProcess(*linear_version(tmp_path, 4), nice=0, on_stats=lambda _: None)
    yield made
    made.kill()
    if not made.ended:
        pump(made)
        made.bury()


def pump(process: WorkerProcess, until: int = 1 << 30) -> int:
    """Read the channel until it ends or `until` replies were asked for; the number of reads."""
    reads = 0
    while reads < until:
        select.select([process.channel], [], [], 30)
        reads += 1
        if process.on_readable():
            return reads
    return reads


def load(process: WorkerProcess, call: int) -> Load:
    return Load(call=call, directory=str(process.directory), intra_threads=1, concurrency=1)


def test_answers_find_their_calls(process: WorkerProcess) -> None:
    replies: list[Reply | None] = []
    process.post(lambda call: load(process, call), on_reply=replies.append)
    process.post(lambda call: Golden(call=call), on_reply=replies.append)
    while len(replies) < 2:
        pump(process, until=1)
    assert [type(reply) for reply in replies] == [Done, Done]
    assert isinstance(replies[1], Done)
    assert replies[1].golden is not None
    assert process.version == 4


def test_a_failure_carries_its_code(process: WorkerProcess) -> None:
    replies: list[Reply | None] = []
    process.post(lambda call: Golden(call=call), on_reply=replies.append)
    pump(process, until=1)
    assert [reply.code for reply in replies if isinstance(reply, Failed)] == ["load_failed"]


def test_the_end_settles_what_waits(process: WorkerProcess) -> None:
    replies: list[Reply | None] = []
    waiting = process.post(lambda call: load(process, call), on_reply=replies.append)
    process.kill()
    pump(process)
    process.bury()
    assert (replies, waiting.reply, process.ended, process.gone.is_set()) == ([None], None, True, True)
    assert (process.signal, process.how_ended()) == (9, "signal SIGKILL")
    with pytest.raises(DeviceError) as late:
        process.call(lambda call: Golden(call=call), timeout_s=1)
    assert late.value.code == "candidate_crashed"


def test_stop_sends_the_last_counts_and_exits_cleanly(tmp_path: Path) -> None:
    stats: list[Stats] = []
    process = WorkerProcess(*linear_version(tmp_path, 1), nice=0, on_stats=stats.append)
    process.post(lambda call: load(process, call))
    pump(process, until=1)
    process.post(lambda call: Stop(call=call))
    pump(process)
    process.bury()
    assert len(stats) == 1
    assert (process.status, process.how_ended()) == (0, "exit status 0")


def test_no_answer_in_time_ends_it_unless_spared(process: WorkerProcess) -> None:
    with pytest.raises(DeviceError) as spared:
        process.call(lambda call: Golden(call=call), timeout_s=0, late="bench_failed", spare=True)
    assert (spared.value.code, process.expected_end) == ("bench_failed", False)
    with pytest.raises(DeviceError):
        process.call(lambda call: Golden(call=call), timeout_s=0)
    pump(process)
    process.bury()
    assert (process.expected_end, process.signal) == (True, 9)
