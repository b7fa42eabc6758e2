"""Keep the C allocator small: the agent idles for weeks, so memory that a burst needed goes back to the system.

glibc gives every thread an arena of its own and keeps freed memory for later; a process of six mostly sleeping threads
gains nothing from either. Set at run time, not through the environment, so that workers do not inherit it. Elsewhere than on
glibc nothing happens.
"""

import ctypes

__all__ = ["keep_small", "trim"]

_M_TRIM_THRESHOLD = -1
_M_ARENA_MAX = -8
_THRESHOLD_BYTES = 128 * 1024


def keep_small() -> None:
    """One arena, freed memory goes back early. Call before threads are started."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_M_ARENA_MAX, 1)
        library.mallopt(_M_TRIM_THRESHOLD, _THRESHOLD_BYTES)


def trim() -> None:
    """Give back what is free now."""
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
