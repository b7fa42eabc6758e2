"""Rollouts: plan, list, look at, explain, steer."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from sqlmodel import Session

from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.reads.fleet import DeviceFilter, device_ids
from wavegate_server.adapters.reads.rollouts import rollout_detail, rollout_revision, rollout_rows
from wavegate_server.adapters.store.rollout_actions import Prepared, act_on_rollout, prepare_action
from wavegate_server.adapters.store.rollouts import create_rollout
from wavegate_server.api.auth import Reader, RolloutWriter
from wavegate_server.api.context import Context, Ctx
from wavegate_server.api.etags import IfMatch, check_match, etag, fits
from wavegate_server.api.once import OnceKey
from wavegate_server.api.pages import Page, Paging, page_of
from wavegate_server.api.problems import problem_responses
from wavegate_server.api.rollout_views import (
    ActionBody,
    DeviceChoice,
    NewRollout,
    RolloutExplanation,
    RolloutSummary,
    RolloutView,
    lasting_choice,
)
from wavegate_server.core.rollout.actions import Action
from wavegate_shared.errors import UsageError
from wavegate_shared.states import RolloutState

__all__ = ["router"]

router = APIRouter(tags=["rollouts"])
RolloutId = Annotated[str, Path(max_length=63, examples=["r-1f2e3d4c"])]


@router.get("/rollouts", operation_id="list_rollouts", summary="List rollouts")
def list_rollouts(
    context: Ctx,
    page: Paging,
    _: Reader,
    model: Annotated[str | None, Query(max_length=63)] = None,
    state: RolloutState | None = None,
) -> Page[RolloutSummary]:
    """Newest first."""
    with read(context.engine) as session:
        rows = rollout_rows(session, model=model, state=state, cursor=page.cursor, limit=page.limit)
    return page_of(rows, RolloutSummary.model_validate)


@router.post(
    "/rollouts",
    operation_id="create_rollout",
    summary="Plan a rollout",
    status_code=201,
    response_model=RolloutView,
    responses=problem_responses(404, 409),
)
def new_rollout(body: NewRollout, context: Ctx, once: OnceKey, who: RolloutWriter) -> Response:
    """Freezes who is in which wave; the engine starts it at once, or at the policy's time or approval."""
    with write(context.engine) as session:
        if replayed := once.replay(session):
            return replayed
        rollout_id = create_rollout(
            session,
            model=body.model,
            version=body.version,
            devices=_chosen(session, context, body.devices),
            policy=body.policy,
            actor=who.name,
            now=context.clock(),
            allow_denied=body.allow_denied,
            choice=lasting_choice(body.devices),
        )
        session.flush()
        view = _view(session, rollout_id)
        headers = {"Location": f"/api/v1/rollouts/{rollout_id}", "ETag": etag(view.revision)}
        return once.answer(session, view, status=201, headers=headers)


@router.get(
    "/rollouts/{rollout_id}", operation_id="get_rollout", summary="Look at a rollout", responses=problem_responses(404)
)
def show_rollout(rollout_id: RolloutId, context: Ctx, response: Response, _: Reader) -> RolloutView:
    """With waves, devices and gate decisions, and the ETag that an action needs."""
    with read(context.engine) as session:
        view = _view(session, rollout_id)
    response.headers["ETag"] = etag(view.revision)
    return view


@router.get(
    "/rollouts/{rollout_id}/why",
    operation_id="explain_rollout",
    summary="Why is this rollout where it is",
    responses=problem_responses(404),
)
def explain_rollout(rollout_id: RolloutId, context: Ctx, _: Reader) -> RolloutExplanation:
    """State, gate decisions and failed devices, as plain sentences."""
    with read(context.engine) as session:
        return RolloutExplanation.of(rollout_detail(session, rollout_id))


def _action(action: Action, summary: str, text: str) -> None:
    """Register `POST /rollouts/{id}/<action>`: the five differ in nothing but the word."""

    def endpoint(
        rollout_id: RolloutId,
        context: Ctx,
        response: Response,
        once: OnceKey,
        who: RolloutWriter,
        body: ActionBody | None = None,
        if_match: IfMatch = None,
    ) -> Response:
        about: Any = {"actor": who.name, "orders": context.assignments, "now": context.clock()}
        about["reason"] = body.reason if body else ""
        with read(context.engine) as session:
            if replayed := once.replay(session):
                return replayed
            before = _revision(session, rollout_id, if_match)
        prepared = Prepared()
        if if_match is not None and fits(if_match, before):
            prepared = prepare_action(context.engine, rollout_id, action, **about)
        with write(context.engine) as session:
            if replayed := once.replay(session):
                return replayed
            if not prepared.began:
                before = _revision(session, rollout_id, if_match)
            changed = act_on_rollout(session, rollout_id, action, view=prepared.view, **about)
            if changed:  # what is done already needs no fresh tag; raising here takes the change back
                check_match(if_match, before)
            session.flush()
            view = _view(session, rollout_id)
            return once.answer(session, view, headers={"ETag": etag(view.revision)})

    endpoint.__doc__ = text
    router.post(
        f"/rollouts/{{rollout_id}}/{action}",
        operation_id=f"{action}_rollout",
        summary=summary,
        response_model=RolloutView,
        responses=problem_responses(404, 409, 412, 428),
    )(endpoint)


_action(
    "pause",
    "Stop offering the version",
    "Devices that have the version keep it. Idempotent: repeating the call has no further effect.",
)
_action(
    "resume",
    "Go on with a paused rollout",
    "Deadlines start anew. Idempotent: repeating the call has no further effect.",
)
_action("approve", "Promote what waits for a human", "Starts a rollout that waits for approval, or promotes its wave.")
_action(
    "abort",
    "End it where it stands",
    "Devices that swapped keep the version; assignments that were not carried out are withdrawn.",
)
_action(
    "rollback",
    "Bring the devices back",
    "Every device of the rollout that runs the version, or is assigned it, goes back to its own previous one, "
    "without a download. Possible after the rollout's end too.",
)


def _chosen(session: Session, context: Context, choice: DeviceChoice) -> list[str]:
    if choice.ids is not None:
        return choice.ids
    wanted = choice.filter.rows() if choice.filter is not None else DeviceFilter(state="active")
    found = device_ids(session, context.clock(), wanted)
    if not found:
        raise UsageError("conflict", "no active device fits the selection")
    return found


def _revision(session: Session, rollout_id: str, if_match: str | None) -> int:
    revision = rollout_revision(session, rollout_id)
    if if_match is None:
        check_match(None, revision)
    return revision


def _view(session: Session, rollout_id: str) -> RolloutView:
    return RolloutView.of(rollout_detail(session, rollout_id))
