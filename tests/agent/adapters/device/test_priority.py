"""Stepping back and coming back, on real threads of a child process."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest


def child(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


needs_permission = pytest.mark.skipif(
    child("from wavegate_agent.adapters.device import priority; print(priority.may_return())") != "True",
    reason="this user may not raise its own priority (no LimitNICE)",
)


@needs_permission
def test_threads_made_while_held_back_come_back_too() -> None:
    """Threads inherit the idle class and keep it when the one that made them is promoted."""
    out = child("""
        import os, threading
        from wavegate_agent.adapters.device import priority
        print(priority.demote(19))
        stop = threading.Event()
        threads = [threading.Thread(target=stop.wait) for _ in range(4)]
        [t.start() for t in threads]
        print(set(priority.classes().values()) == {(os.SCHED_IDLE, 19)}, len(priority.classes()))
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        print((os.SCHED_IDLE, 19) in priority.classes().values())
        print(priority.promote(), set(priority.classes().values()) == {(os.SCHED_OTHER, 0)})
        stop.set()
    """)
    assert out.split("\n") == ["sched_idle", "True 5", "True", "[] True"]


def test_without_permission_to_return_nothing_is_held_back() -> None:
    out = child("""
        from wavegate_agent.adapters.device import priority
        def forbidden(tid):
            raise PermissionError
        before, priority._promote_thread = priority.classes(), forbidden
        print(priority.may_return(), priority.demote(19), before.items() <= priority.classes().items())
    """)
    assert out == "False none True"


def test_the_trial_leaves_the_caller_as_it_was() -> None:
    out = child("""
        from wavegate_agent.adapters.device import priority
        before = priority.classes()
        priority.may_return()
        print(before.items() <= priority.classes().items())  # a thread may still be leaving
    """)
    assert out == "True"


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel does not group by session")
def test_a_candidate_has_a_session_of_little_weight_until_it_goes_live() -> None:
    out = child("""
        from pathlib import Path
        from wavegate_agent.adapters.device import priority
        weight = lambda: Path("/proc/self/autogroup").read_text().split()[-1]
        priority.demote(19)
        held = weight()
        priority.promote()
        print(held, weight())
    """)
    assert out == "10 0"


def test_a_worker_that_was_never_a_candidate_leaves_the_shared_session_alone() -> None:
    out = child("""
        import os
        from pathlib import Path
        from wavegate_agent.adapters.device import priority
        before = Path("/proc/self/autogroup").read_text()
        print(os.getsid(0) != os.getpid(), priority.promote(), Path("/proc/self/autogroup").read_text() == before)
    """)
    assert out == "True [] True"


def test_a_session_that_stays_light_is_told_not_hidden() -> None:
    out = child("""
        from pathlib import Path
        from wavegate_agent.adapters.device import priority
        priority.demote(19)
        priority._AUTOGROUP = Path("/proc")
        print(len(priority.promote()) > 0)
    """)
    assert out == "True"
