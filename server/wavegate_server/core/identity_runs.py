"""Whether two copies of one identity take turns: the runs of the agent that said hello, in order.

Each start of an agent draws a new number. A run that is heard again after another one was heard is a second agent that lives at the
same time: a state directory was copied. A device that is started again, however often, never goes back to an earlier run.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

__all__ = ["Run", "Turn", "note_run"]

_KEPT = 8
_NAMED = ("host", "machine", "memory_total_mb", "kernel")


class Run(msgspec.Struct, frozen=True):
    """One run: its number, and what tells its machine from another to people."""

    number: str
    facts: dict[str, Any] = {}

    def __str__(self) -> str:
        """As `gw-17 (aarch64, 1024 MB, 6.1.0, run 1f3a)`."""
        facts = self.facts
        memory = facts.get("memory_total_mb")
        rest = [facts.get("machine"), f"{memory} MB" if memory else None, facts.get("kernel"), f"run {self.number[:4]}"]
        return f"{facts.get('host') or 'unknown host'} ({', '.join(str(part) for part in rest if part)})"


class Turn(msgspec.Struct, frozen=True):
    """What became of the list. `other`: the run that was heard in between, where an earlier one came back."""

    runs: list[Run]
    other: Run | None = None


def note_run(runs: Sequence[Run], number: str, facts: Mapping[str, Any]) -> Turn:
    """The list after a hello of this run; an agent that names none (release 0.1) leaves it as it is."""
    now = Run(number, {name: facts[name] for name in _NAMED if name in facts})
    if not number or (runs and runs[-1].number == number):
        return Turn(list(runs))
    came_back = any(run.number == number for run in runs)
    other = runs[-1] if came_back else None
    return Turn([*(run for run in runs if run.number != number), now][-_KEPT:], other)
