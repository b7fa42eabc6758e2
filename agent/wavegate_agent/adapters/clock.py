"""The agent's only reading of clocks: wall time, and boot time that no clock change moves."""

import time
from datetime import UTC, datetime

__all__ = ["boottime_s", "now"]


def now() -> datetime:
    """Aware UTC by the system clock, which on a device may be wrong: see `core/trusted_time.py`."""
    return datetime.now(UTC)


def boottime_s() -> float:
    """Seconds since boot, suspend included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
