"""Operators' actions on a rollout: approve, pause, resume, abort, roll back.

Idempotent: an action that is done already changes nothing and is no error. One about very many devices is written in parts (see
`core/rollout/parts`): what has to come before the decision itself by `prepare_action`, the decision by `act_on_rollout`, and what may
follow it by the engine.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine
from sqlmodel import Session

from wavegate_server.adapters.database.connection import read
from wavegate_server.adapters.store.assignments import AssignmentWriter
from wavegate_server.adapters.store.rollout_parts import PartWriter, still
from wavegate_server.adapters.store.rollout_transitions import TransitionWriter
from wavegate_server.adapters.store.rollout_view import load_view
from wavegate_server.adapters.store.rollouts import check_free
from wavegate_server.core.rollout.actions import Action, act
from wavegate_server.core.rollout.parts import PART, goes_on, parts
from wavegate_server.core.rollout.plan import RolloutView
from wavegate_shared.errors import UsageError

__all__ = ["Prepared", "act_on_rollout", "prepare_action"]

_TRIES = 20


@dataclass(frozen=True, slots=True)
class Prepared:
    """Before an action. `view`: the rollout as it was read, where reading it takes long; `began`: something was written already."""

    view: RolloutView | None = None
    began: bool = False


def prepare_action(
    database: Engine,
    rollout_id: str,
    action: Action,
    *,
    actor: str,
    orders: AssignmentWriter,
    now: datetime,
    reason: str = "",
) -> Prepared:
    """What `act_on_rollout` would otherwise do while everybody waits: read the rollout, and write what comes before the decision.

    Returns:
        what `act_on_rollout` needs to know of it; that may still refuse.
    """
    began = False
    for _ in range(_TRIES):
        with read(database) as session:
            try:
                view = load_view(session, rollout_id, since=now)
                transition = act(view, action, actor=actor, reason=reason, now=now)
            except UsageError:
                return Prepared(began=began)
        rows = len(parts(view, transition))
        if rows == 1 or goes_on(transition):
            return Prepared(view if len(view.devices) > PART else None, began)
        writer = PartWriter(view, transition, orders, actor=actor, now=now)
        began = True
        writer.write(database, len(writer.left) - 1)
    return Prepared(began=began)


def act_on_rollout(
    session: Session,
    rollout_id: str,
    action: Action,
    *,
    actor: str,
    orders: AssignmentWriter,
    now: datetime,
    reason: str = "",
    view: RolloutView | None = None,
) -> bool:
    """Do it; whether anything changed.

    Args:
        session: of a write transaction.
        rollout_id: which.
        action: `approve`, `pause`, `resume`, `abort` or `rollback`.
        actor: who, for the audit log.
        orders: `AssignmentWriter(director, tuf_repo, settings.topics)`.
        now: aware UTC.
        reason: why, for people; may be empty.
        view: as `prepare_action` read it; read anew where something was decided since.

    Raises:
        UsageError: `not_found`, or `conflict` when the rollout's state does not allow it.
    """
    if view is None or not still(session, rollout_id, view.revision):
        view = load_view(session, rollout_id, since=now, lock=True)
    transition = act(view, action, actor=actor, reason=reason, now=now)
    if action == "rollback":
        check_free(session, view, transition.restore)
    if transition.empty:
        return False
    first = parts(view, transition)[0] if goes_on(transition) else transition
    TransitionWriter(view, orders, actor=actor, now=now).write(session, first)
    return True
