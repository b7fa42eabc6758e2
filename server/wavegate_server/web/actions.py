"""What an operator can do from a rollout's page: the same function as the API's, as POST forms.

A form of another site cannot send these: the Origin must be this server (browsers always say it on POST), and the cookie is
SameSite. After the change the browser is sent back to the page, so a reload repeats nothing; what cannot be done is said on the page.
"""

from fastapi import APIRouter, Request, Response

from wavegate_server.adapters.database.connection import write
from wavegate_server.adapters.store.rollout_actions import act_on_rollout, prepare_action
from wavegate_server.adapters.store.tokens import Scope
from wavegate_server.api.auth import same_origin
from wavegate_server.core.rollout.actions import ACTIONS, Action
from wavegate_server.core.sentences import Sentence
from wavegate_server.web.forms import FormProblem
from wavegate_server.web.page_context import PageContext
from wavegate_server.web.render import HEADERS
from wavegate_server.web.rollout_page import rollout_page
from wavegate_shared.errors import UsageError

__all__ = ["add_actions"]


def add_actions(router: APIRouter, desk: PageContext) -> None:
    """`POST /rollouts/{id}/{action}`."""

    @router.post("/rollouts/{rollout_id}/{action}")
    def act(request: Request, rollout_id: str, action: str) -> Response:
        principal = desk.principal(request)
        if not same_origin(request):
            raise UsageError("forbidden", Sentence("refused.origin"))
        if action not in ACTIONS:
            raise UsageError("not_found", Sentence("missing.action", name=repr(action)))
        try:
            if not principal.may(Scope.ROLLOUTS):
                raise UsageError("forbidden", Sentence("refused.may_not_roll", name=principal.name))
            _act(desk, rollout_id, action, principal.name)
        except UsageError as error:
            if error.code == "not_found":
                raise
            return rollout_page(request, desk, rollout_id, FormProblem.of(error, at=action))
        return Response(status_code=303, headers={**HEADERS, "location": f"/rollouts/{rollout_id}"})


def _act(desk: PageContext, rollout_id: str, action: Action, actor: str) -> None:
    context = desk.context
    orders = context.assignments
    now = desk.now()
    prepared = prepare_action(context.engine, rollout_id, action, actor=actor, orders=orders, now=now)
    with write(context.engine) as session:
        act_on_rollout(session, rollout_id, action, actor=actor, orders=orders, now=now, view=prepared.view)
