"""Operators' actions on a rollout, each in the caller's write transaction: approve, pause, resume, abort, roll back.

Idempotent: an action that is done already changes nothing and is no error.
"""

from datetime import datetime

from sqlmodel import Session

from wavegate_server.adapters.store.assignments import AssignmentWriter
from wavegate_server.adapters.store.rollout_transitions import write_transition
from wavegate_server.adapters.store.rollouts import check_free, load_view
from wavegate_server.core.rollout.actions import Action, act

__all__ = ["act_on_rollout"]


def act_on_rollout(
    session: Session,
    rollout_id: str,
    action: Action,
    *,
    actor: str,
    orders: AssignmentWriter,
    now: datetime,
    reason: str = "",
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

    Raises:
        UsageError: `not_found`, or `conflict` when the rollout's state does not allow it.
    """
    view = load_view(session, rollout_id, since=now, lock=True)
    transition = act(view, action, actor=actor, reason=reason, now=now)
    if action == "rollback":
        check_free(session, view, transition.restore)
    write_transition(session, view, transition, orders, actor=actor, now=now)
    return not transition.empty
