"""A rollout's page: its state, waves and gates, and the buttons that make sense now. Not here: what a button does (`actions`)."""

from dataclasses import dataclass, replace

from fastapi import Request, Response

from wavegate_server.adapters import reads
from wavegate_server.adapters.reads import RolloutDetail
from wavegate_server.core.actions import Action
from wavegate_server.web.desk import Desk
from wavegate_server.web.evidence import gate_view
from wavegate_server.web.forms import FormProblem
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


@dataclass(frozen=True, slots=True)
class Offer:
    """A button of the page; a careful one asks back first."""

    name: Action
    careful: bool


def offers(rollout: RolloutDetail) -> tuple[Offer, ...]:
    """The actions that make sense now. The function behind them decides again, on the state it then finds."""
    names = _OFFERED.get(rollout.row.state, ())
    waiting = [wave for wave in rollout.waves if wave.state == WaveState.SOAKING and not wave.approved_by]
    if waiting and rollout.row.state == RolloutState.RUNNING:
        names = ("approve", *names)
    return tuple(Offer(name, name in _CAREFUL) for name in names)


def rollout_page(request: Request, desk: Desk, rollout_id: str, problem: FormProblem | None = None) -> Response:
    """The page; with `problem`, what was asked for and not done.

    Raises:
        UsageError: `not_found`.
        SignedOut: nobody is signed in.
    """
    viewer = desk.viewer(request)
    with desk.session() as session:
        detail, revision = reads.rollout_detail(session, rollout_id), reads.revision(session)
    return desk.renderer.page(
        request,
        "rollout.html",
        replace(viewer, path=f"/rollouts/{rollout_id}") if problem else viewer,
        status=problem.status if problem else 200,
        rollout=detail,
        views={gate.id: gate_view(gate.evidence) for gate in detail.gates},
        actions=offers(detail),
        revision=revision,
        problem=problem,
    )
