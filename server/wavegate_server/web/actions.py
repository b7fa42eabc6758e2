"""What an operator can do from a rollout's page: the same function as the API's, as POST forms.

A form of another site cannot send these: the Origin must be this server (browsers always say it on POST), and the cookie is
SameSite. After the change the browser is sent back to the page, so a reload repeats nothing.
"""

from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

from wavegate_server.adapters.database import write
from wavegate_server.adapters.orders import Orders
from wavegate_server.adapters.reads import RolloutDetail
from wavegate_server.adapters.rollout_actions import act_on_rollout
from wavegate_server.adapters.tokens import Scope
from wavegate_server.api.auth import same_origin
from wavegate_server.core.actions import ACTIONS, Action
from wavegate_server.web.desk import Desk
from wavegate_server.web.render import HEADERS
from wavegate_shared.errors import UsageError
from wavegate_shared.states import RolloutState, WaveState

__all__ = ["Offer", "add_actions", "offers"]

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


def add_actions(router: APIRouter, desk: Desk) -> None:
    """`POST /rollouts/{id}/{action}`."""

    @router.post("/rollouts/{rollout_id}/{action}")
    def act(request: Request, rollout_id: str, action: str) -> Response:
        principal = desk.principal(request)
        if not same_origin(request) or not principal.may(Scope.ROLLOUTS):
            raise UsageError("forbidden", f"{principal.name} may not change rollouts from here")
        if action not in ACTIONS:
            raise UsageError("not_found", f"no action {action!r}")
        context = desk.context
        orders = Orders(context.director, context.tuf_repo, context.settings.topics)
        with write(context.engine) as session:
            act_on_rollout(session, rollout_id, action, actor=principal.name, orders=orders, now=desk.now())
        return Response(status_code=303, headers={**HEADERS, "location": f"/rollouts/{rollout_id}"})
