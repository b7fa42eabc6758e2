"""Hold a candidate back behind live traffic, and let go of it when it goes live.

A candidate runs in SCHED_IDLE with nice 19 from its first lines on. Two facts decide how: threads inherit the class of
the thread that made them and keep it when that one is promoted, so promotion goes over every thread of the process; and
a process without LimitNICE may not be allowed to come back, so coming back is tried on a throw-away thread first. Where it
fails nothing is demoted: a live worker left idle would be worse than a candidate that competes.

Where the kernel groups processes by session (`sched_autogroup`), priorities count inside one session only, and what an
idle candidate uses is charged to the session it shares with the live worker. So a candidate takes a session of its own
with a tenth of the weight: less starves it on a busy device until its load times out. That needs no permission, neither
to go nor to come back; without autogroups it does nothing.

Standard library only, because it runs before the heavy imports.

Source: sched(7), "The autogroup feature" and "SCHED_IDLE".
"""

import os
import threading
import time
from pathlib import Path

__all__ = ["NONE", "SCHED_IDLE", "classes", "demote", "may_return", "promote"]

SCHED_IDLE = "sched_idle"
NONE = "none"
_TASKS = Path("/proc/self/task")
_AUTOGROUP = Path("/proc/self/autogroup")
_AUTOGROUP_NICE = 10  # weight 110, where an ordinary session has 1024
_AUTOGROUP_TRIES = 20
_AUTOGROUP_PAUSE_S = 0.02
"""The kernel takes one change per tenth of a second from a process without privileges."""


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
    _leave_session()
    if not may_return():
        return NONE
    _demote_thread(0, nice)
    return SCHED_IDLE


def promote() -> list[int]:
    """Give every thread of this process the normal class and nice 0; returns the thread ids that stayed back.

    Threads made meanwhile by a thread not promoted yet are caught by going round until a round finds nothing to do.
    """
    if not _weigh_session(0):
        return _threads()
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


def _leave_session() -> None:
    if not _AUTOGROUP.exists():
        return
    try:
        os.setsid()
    except PermissionError:
        return  # leads its session already: its weight is not this process's alone
    _weigh_session(_AUTOGROUP_NICE)


def _weigh_session(nice: int) -> bool:
    """Set the weight of this process's session; True also where it leads none, for a shared one is not ours to change."""
    if os.getsid(0) != os.getpid() or not _AUTOGROUP.exists():
        return True
    for _ in range(_AUTOGROUP_TRIES):
        try:
            _AUTOGROUP.write_text(str(nice))
        except BlockingIOError:
            time.sleep(_AUTOGROUP_PAUSE_S)
        except OSError:
            return False
        else:
            return True
    return False


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
