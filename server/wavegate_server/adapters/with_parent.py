"""Processes that end when their parent does: `end_with_parent` for a child of ours, and a launcher for any program.

The launcher is `python with_parent.py PARENT_PID PROGRAM [ARG...]`, for programs that cannot watch a pipe of ours (Mosquitto). Linux
only (`prctl(PR_SET_PDEATHSIG)`, kept across exec); elsewhere the program simply runs. Started by path and with the standard
library only, so that it costs milliseconds.
"""

import ctypes
import os
import signal
import sys

__all__ = ["end_with_parent", "main"]

_PR_SET_PDEATHSIG = 1


def end_with_parent(ending: signal.Signals = signal.SIGTERM) -> None:
    """Have the kernel send `ending` to this process when the one that started it dies, however it dies.

    A parent that died before the call is not noticed: compare `os.getppid()` with its number afterwards. Does nothing but
    on Linux.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, ending, 0, 0, 0)


def main(arguments: list[str]) -> None:
    """Become the program; ends at once when the parent is already gone."""
    parent, program = int(arguments[0]), arguments[1:]
    end_with_parent()
    if os.getppid() != parent:  # it died before the signal was asked for
        return
    os.execv(program[0], program)  # noqa: S606  # no shell, a list of arguments


if __name__ == "__main__":
    main(sys.argv[1:])
