"""Runs a program that ends when its parent does: `python with_parent.py PARENT_PID PROGRAM [ARG...]`.

For child programs that cannot watch a pipe of ours (Mosquitto). Linux only (`prctl(PR_SET_PDEATHSIG)`, kept across exec);
elsewhere the program simply runs. Started by path and with the standard library only, so that it costs milliseconds.
"""

import ctypes
import os
import signal
import sys

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Become the program; ends at once when the parent is already gone."""
    parent, program = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it died before the signal was asked for
        return
    os.execv(program[0], program)  # noqa: S606  # no shell, a list of arguments


if __name__ == "__main__":
    main(sys.argv[1:])
