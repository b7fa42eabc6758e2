"""What a subprocess does first when it runs somebody's Python: it gives up the network, and memory beyond a limit.

A torch module comes as a program, and its weights may be one too (a pickle). Two fences: a network namespace of its own,
which holds against anything, where the kernel lets a user make one; and always an audit hook that refuses sockets by name,
which gives the clear error but is no wall against code that wants around it. `enter` says which hold. Files are NOT fenced
off: the process reads and writes what its user may. docs/compression.md says so to the reader.
"""

import ctypes
import os
import resource
import sys
from enum import StrEnum
from pathlib import Path
from typing import Any

__all__ = ["Fence", "NetworkRefusedError", "enter"]

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
_REFUSED = frozenset(
    f"socket.{name}"
    for name in (
        "bind", "connect", "getaddrinfo", "gethostbyaddr", "gethostbyname", "getnameinfo", "sendmsg", "sendto",
    )
)  # fmt: skip


class Fence(StrEnum):
    """What keeps the network away."""

    NAMESPACE = "own network namespace"
    HOOK = "audit hook only: this kernel gives no network namespace here"
    NONE = "network not refused"


class NetworkRefusedError(PermissionError):
    """Code in a sandboxed process asked for the network."""


def enter(*, no_network: bool = True, memory_bytes: int | None = None) -> Fence:
    """Fence this process in, for good. Call it before numpy or torch start threads: a threaded process gets no namespace.

    Args:
        no_network: refuse the network.
        memory_bytes: limit of the address space; None leaves the limit the parent set.

    Returns:
        What keeps the network away.
    """
    fence = Fence.NONE
    if no_network:
        fence = Fence.NAMESPACE if _unshare() else Fence.HOOK
        sys.addaudithook(_refuse)
    if memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    return fence


def _unshare() -> bool:
    user, group = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    unshare = getattr(libc, "unshare", None)
    if unshare is None:
        return False
    if unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        _keep_identity(user, group)
        return True
    return bool(unshare(_CLONE_NEWNET) == 0)


def _keep_identity(user: int, group: int) -> None:
    """In its user namespace the process stays who it was; where that cannot be written it is nobody, which also works."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        try:
            Path("/proc/self", name).write_text(text, encoding="ascii")
        except OSError:
            return


def _refuse(event: str, args: tuple[Any, ...]) -> None:
    if event in _REFUSED:
        raise NetworkRefusedError(f"no network in here ({event})")
