"""A transition written part by part, each in a transaction of its own that is over within a few hundredths of a second.

Between two parts other writers have their turn: telemetry is stored, and a person may pause the rollout. So every part asks first
whether the rollout is still the one that was decided about; if it is not, the rest is not written, and the next step decides anew.
"""

from collections import deque
from datetime import datetime

from sqlalchemy import Engine
from sqlmodel import Session, col, select

from wavegate_server.adapters.database.connection import write
from wavegate_server.adapters.database.tables import Rollout
from wavegate_server.adapters.store.assignments import AssignmentWriter
from wavegate_server.adapters.store.rollout_transitions import TransitionWriter
from wavegate_server.core.rollout.parts import parts
from wavegate_server.core.rollout.plan import RolloutView, Transition

__all__ = ["PartWriter", "still"]


class PartWriter:
    """The parts of one transition that are not written yet."""

    def __init__(
        self, view: RolloutView, transition: Transition, orders: AssignmentWriter, *, actor: str, now: datetime
    ) -> None:
        self.left = deque(parts(view, transition))
        self._view = view
        self._revision = view.revision
        self._writer = TransitionWriter(view, orders, actor=actor, now=now)

    def write(self, database: Engine, most: int) -> bool:
        """Write up to `most` parts; False when the rollout is not the one that was decided about any more."""
        for _ in range(min(most, len(self.left))):
            with write(database) as session:
                if not still(session, self._view.id, self._revision):
                    self.left.clear()
                    return False
                self._revision = self._writer.write(session, self.left[0])
            self.left.popleft()
        return True


def still(session: Session, rollout_id: str, revision: int) -> bool:
    """Whether nothing was decided about the rollout since; takes its row lock."""
    query = select(Rollout.revision).where(col(Rollout.id) == rollout_id).with_for_update()
    return session.exec(query).first() == revision
