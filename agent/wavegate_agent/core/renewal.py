"""When a certificate is renewed: from two thirds of its life on, each device at its own time.

Devices that were enrolled together would all ask in the same hour; a share of the life that follows from the name spreads them.
"""

import zlib
from dataclasses import dataclass
from datetime import datetime

__all__ = ["Term", "due"]

_FROM = 2.0 / 3.0
_SPREAD = 0.05


@dataclass(frozen=True, slots=True)
class Term:
    """A certificate's serial number (lower-case hex) and life."""

    serial: str
    begins: datetime
    ends: datetime


def due(term: Term, device: str, now: datetime) -> bool:
    """Whether the device should renew: between 67 and 72 % of the life have passed, by its name."""
    share = _FROM + _SPREAD * (zlib.crc32(device.encode()) % 1000) / 1000
    return now >= term.begins + share * (term.ends - term.begins)
