"""A rollout's page: its state, waves and gates, and the buttons that make sense now. Not here: what a button does (`actions`)."""

from dataclasses import dataclass, replace
from datetime import datetime

from fastapi import Request, Response
from sqlmodel import Session

from wavegate_server.adapters.reads.page import revision as read_revision
from wavegate_server.adapters.reads.rollouts import RolloutDetail, WaveRow, rollout_detail
from wavegate_server.adapters.store.rollout_view import load_view
from wavegate_server.core.rollout.actions import Action, possible
from wavegate_server.web.evidence import gate_view
from wavegate_server.web.forms import FormProblem
from wavegate_server.web.page_context import PageContext
from wavegate_shared.errors import UsageError
from wavegate_shared.states import RolloutState, WaveState

__all__ = ["Offer", "offers", "rollout_page"]

_OFFERED: dict[str, tuple[Action, ...]] = {
    RolloutState.DRAFT: ("approve", "abort"),
    RolloutState.SCHEDULED: ("pause", "abort"),
    RolloutState.RUNNING: ("pause", "abort", "rollback"),
    RolloutState.PAUSED: ("resume", "abort", "rollback"),
    RolloutState.COMPLETED: ("rollback",),
    RolloutState.CANCELLED: ("rollback",),
}
_CAREFUL = frozenset({"abort", "rollback"})
_AWAITS_A_PERSON = frozenset({"gate.needs_person", "gate.not_proven", "gate.missing"})
"""What the gate says when it will not promote by itself."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A button of the page; a careful one asks back first. `note`: the key of what it will do, where the word alone does not say it."""

    name: Action
    careful: bool
    note: str = ""


def offers(rollout: RolloutDetail, *, way_back: bool = True) -> tuple[Offer, ...]:
    """The actions that make sense now. The function behind them decides again, on the state it then finds.

    Args:
        rollout: as it is.
        way_back: whether a rollback would bring any device back; a first version's would not.
    """
    names = tuple(name for name in _OFFERED.get(rollout.row.state, ()) if way_back or name != "rollback")
    if rollout.row.state == RolloutState.RUNNING and any(_awaits_approval(rollout, wave) for wave in rollout.waves):
        names = ("approve", *names)
    note = "action.approve.starts" if rollout.row.state == RolloutState.DRAFT else "action.approve.passes"
    return tuple(Offer(name, name in _CAREFUL, note if name == "approve" else "") for name in names)


def _awaits_approval(rollout: RolloutDetail, wave: WaveRow) -> bool:
    """Whether the gate holds this wave for a person; a decision of an older release has no code, and may."""
    if wave.state != WaveState.SOAKING or wave.approved_by:
        return False
    newest = next((gate for gate in rollout.gates if gate.wave == wave.number), None)
    return newest is not None and (not newest.said or newest.said.get("code") in _AWAITS_A_PERSON)


def _way_back(session: Session, rollout_id: str, now: datetime) -> bool:
    """Whether a rollback would bring a device back; True for rows the engine cannot read, the action says what is wrong."""
    try:
        return possible(load_view(session, rollout_id, since=now), "rollback", now)
    except (AttributeError, TypeError, ValueError, UsageError):  # rows of a release that knew other facts
        return True


def rollout_page(request: Request, desk: PageContext, rollout_id: str, problem: FormProblem | None = None) -> Response:
    """The page; with `problem`, what was asked for and not done.

    Raises:
        UsageError: `not_found`.
        SignedOut: nobody is signed in.
    """
    viewer = desk.viewer(request)
    with desk.session() as session:
        detail, revision = rollout_detail(session, rollout_id), read_revision(session)
        way_back = _way_back(session, rollout_id, desk.now())
    return desk.renderer.page(
        request,
        "rollout.html",
        replace(viewer, path=f"/rollouts/{rollout_id}") if problem else viewer,
        status=problem.status if problem else 200,
        rollout=detail,
        views={gate.id: gate_view(gate.evidence) for gate in detail.gates},
        actions=offers(detail, way_back=way_back),
        revision=revision,
        problem=problem,
    )
