"""The pool's thread: ends, timers, signs of life, counts."""

import signal
import threading
from pathlib import Path

import pytest

from tests.support.models import linear_version
from tests.support.serving import kill
from tests.support.waiting import wait_until
from wavegate_agent.adapters.workers import pool as workers_pool
from wavegate_agent.adapters.workers.pool import WorkerPool
from wavegate_agent.adapters.workers.process import WorkerProcess
from wavegate_agent.core.live_stats import LiveStats
from wavegate_agent.core.worker_messages import Stats, to_counts


def test_an_end_is_told_at_once(tmp_path: Path) -> None:
    gone: list[WorkerProcess] = []
    pool = WorkerPool("test", gone.append)
    process = pool.spawn(*linear_version(tmp_path, 1), nice=0)
    kill(process.pid)
    wait_until(lambda: gone == [process])
    assert process.signal == 11
    pool.close()


def test_a_silent_worker_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_pool, "_PING_S", 0.05)
    monkeypatch.setattr(workers_pool, "_SILENT_S", 0.5)
    pool = WorkerPool("test", lambda _: None)
    process = pool.spawn(*linear_version(tmp_path, 1), nice=0)
    patient = pool.spawn(*linear_version(tmp_path, 2), nice=0)
    process.must_answer = True
    for one in (process, patient):
        kill(one.pid, signal.SIGSTOP)
    wait_until(lambda: process.ended)
    assert process.signal == 9
    assert not patient.ended
    kill(patient.pid, signal.SIGCONT)
    pool.close()


def test_the_timer_runs_once_and_can_be_forgotten() -> None:
    ran = threading.Event()
    pool = WorkerPool("test", lambda _: None)
    pool.set_timer(1e12, lambda: pytest.fail("forgotten"))
    pool.set_timer(None, ran.set)
    pool.set_timer(0.0, ran.set)
    assert ran.wait(10)
    pool.close()


def test_counts_of_several_collections_are_added_by_version() -> None:
    pool = WorkerPool("test", lambda _: None)
    for version in (2, 1, 2):
        stats = LiveStats(version=version, model="m")
        stats.count(1.0, failed=False)
        pool._take_stats(Stats(call=0, versions=[to_counts(stats)]))
    assert [(one.version, one.requests) for one in pool.collect()] == [(1, 1), (2, 2)]
    assert pool.collect() == []
    pool.close()
