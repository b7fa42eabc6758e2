"""Hold a candidate back behind live traffic, and let go of it when it goes live.

A candidate runs in SCHED_IDLE with nice 19 from its first lines on. Two facts decide how: threads inherit the class of
the thread that made them and keep it when that one is promoted, so promotion goes over every thread of the process; and
a process without LimitNICE may not be allowed to come back, so coming back is tried on a throw-away thread first. Where it
fails nothing is demoted: a live worker left idle would be worse than a candidate that competes.

Standard library only, because it runs before the heavy imports.
"""

import os
import threading
from pathlib import Path

__all__ = ["NONE", "SCHED_IDLE", "classes", "demote", "may_return", "promote"]

SCHED_IDLE = "sched_idle"
NONE = "none"
_TASKS = Path("/proc/self/task")


def may_return() -> bool:
    """Whether a thread of this process that was demoted can be promoted again; tried, not guessed."""
    answer: list[bool] = []

    def trial() -> None:
        try:
            _demote_thread(0, 19)
            _promote_thread(0)
            answer.append(_is_live(0))
        except OSError:
            answer.append(False)

    thread = threading.Thread(target=trial, name="priority-trial")
    thread.start()
    thread.join()
    return answer == [True]


def demote(nice: int) -> str:
    """Hold the calling thread, and every thread it makes from now on, back; returns what is in force."""
    if not may_return():
        return NONE
    _demote_thread(0, nice)
    return SCHED_IDLE


def promote() -> list[int]:
    """Give every thread of this process the normal class and nice 0; returns the thread ids that stayed back.

    Threads made meanwhile by a thread not promoted yet are caught by going round until a round finds nothing to do.
    """
    for _ in range(10):
        back = [tid for tid in _threads() if not _is_live(tid)]
        if not back:
            return []
        for tid in back:
            try:
                _promote_thread(tid)
            except ProcessLookupError:
                continue
            except PermissionError:
                return back
    return [tid for tid in _threads() if not _is_live(tid)]


def classes() -> dict[int, tuple[int, int]]:
    """(scheduling policy, nice) of every thread of this process."""
    return {tid: (os.sched_getscheduler(tid), os.getpriority(os.PRIO_PROCESS, tid)) for tid in _threads()}


def _threads() -> list[int]:
    return [int(entry.name) for entry in _TASKS.iterdir()]


def _demote_thread(tid: int, nice: int) -> None:
    os.setpriority(os.PRIO_PROCESS, tid, nice)
    os.sched_setscheduler(tid, os.SCHED_IDLE, os.sched_param(0))


def _promote_thread(tid: int) -> None:
    os.sched_setscheduler(tid, os.SCHED_OTHER, os.sched_param(0))
    os.setpriority(os.PRIO_PROCESS, tid, 0)


def _is_live(tid: int) -> bool:
    try:
        return os.sched_getscheduler(tid) == os.SCHED_OTHER and os.getpriority(os.PRIO_PROCESS, tid) <= 0
    except ProcessLookupError:
        return True
