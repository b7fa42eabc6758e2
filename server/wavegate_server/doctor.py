"""`wavegate doctor`: what is wrong with this installation, or will be soon. (signatures; body follows)"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from wavegate_server.config import Settings

__all__ = ["Finding", "Level", "examine"]


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. Attributes: check (short name), level, sentence (what is), advice (what to do; may be empty)."""

    check: str
    level: Level
    sentence: str
    advice: str = ""


def examine(settings: Settings, now: datetime) -> list[Finding]:
    """Every check, in a fixed order; never raises for a broken installation."""
    raise NotImplementedError
