"""Fleet defaults: what devices get that come after a rollout."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.config import JsonDict

from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.database.tables import FleetDefault
from wavegate_server.adapters.reads.fleet_defaults import default_rows
from wavegate_server.adapters.store.fleet_defaults import clear_default, set_default
from wavegate_server.api.auth import Reader, RolloutWriter
from wavegate_server.api.context import Ctx
from wavegate_server.api.once import OnceKey
from wavegate_server.api.problems import problem_responses
from wavegate_server.api.rollout_views import DeviceChoice, lasting_choice
from wavegate_server.core.rollout.late_joiners import parse_choice
from wavegate_shared.errors import UsageError

__all__ = ["router"]

router = APIRouter(tags=["fleet defaults"])
_EXAMPLE: JsonDict = {"model": "address-match", "version": 2, "devices": {"filter": {"class": "locker-small"}}}


class NewFleetDefault(BaseModel):
    """The default to set."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})

    model: Annotated[str, StringConstraints(max_length=63)]
    version: int = Field(ge=1, le=2**31 - 1)
    devices: DeviceChoice = Field(description="`all`, or a `filter` of class, site and labels")
    ahead: bool = Field(default=False, description="also where no registered device fits yet")


class FleetDefaultView(BaseModel):
    """A default. Of several that fit a device, the newest in effect counts."""

    id: int
    model: str
    version: int
    devices: str = Field(description="`all`, or as the command line takes it: `class=edge-a,site=berlin`")
    rollout: str | None = Field(description="that left it behind; null: a person set it")
    set_by: str
    set_at: datetime
    cleared_at: datetime | None
    in_effect: bool = Field(
        description="false: its version is denied or revoked, or a newer one is for the same devices"
    )


class FleetDefaults(BaseModel):
    """All that were not cleared, newest first."""

    items: list[FleetDefaultView]


@router.get("/fleet/defaults", operation_id="list_fleet_defaults", summary="List fleet defaults")
def list_fleet_defaults(
    context: Ctx, _: Reader, model: Annotated[str | None, Query(max_length=63)] = None
) -> FleetDefaults:
    """Newest first, without those that were cleared."""
    with read(context.engine) as session:
        return FleetDefaults(
            items=[
                FleetDefaultView(
                    id=row.id,
                    model=row.model,
                    version=row.version,
                    devices=str(row.choice),
                    rollout=row.rollout,
                    set_by=row.set_by,
                    set_at=row.set_at,
                    cleared_at=None,
                    in_effect=row.in_effect,
                )
                for row in default_rows(session, model)
            ]
        )


@router.post(
    "/fleet/defaults",
    operation_id="set_fleet_default",
    summary="Set a fleet default",
    status_code=201,
    response_model=FleetDefaultView,
    responses=problem_responses(404, 409),
)
def set_fleet_default(body: NewFleetDefault, context: Ctx, once: OnceKey, who: RolloutWriter) -> Response:
    """Devices that fit and wait for it get it within a minute, a few at a time. A completed rollout sets one by itself."""
    choice = lasting_choice(body.devices)
    if choice is None:
        raise UsageError(
            "invalid", "a fleet default is for all devices, a class, a site or labels, not for single devices"
        )
    with write(context.engine) as session:
        if replayed := once.replay(session):
            return replayed
        row = set_default(
            session,
            model=body.model,
            version=body.version,
            choice=choice,
            actor=who.name,
            now=context.clock(),
            ahead=body.ahead,
        )
        return once.answer(session, _view(row, True), status=201)


@router.post(
    "/fleet/defaults/{number}/clear",
    operation_id="clear_fleet_default",
    summary="End a fleet default",
    responses=problem_responses(404),
)
def clear_fleet_default(
    number: Annotated[int, Path(ge=1, le=2**31 - 1)], context: Ctx, who: RolloutWriter
) -> FleetDefaultView:
    """Devices that have its version keep it. The default before it for the same devices is in effect again.

    Idempotent: repeating the call has no further effect.
    """
    with write(context.engine) as session:
        row = clear_default(session, number, actor=who.name, now=context.clock())
        return _view(row, False)


def _view(row: FleetDefault, in_effect: bool) -> FleetDefaultView:
    return FleetDefaultView(
        id=row.id or 0,
        model=row.model,
        version=row.version,
        devices=str(parse_choice(row.choice)),
        rollout=row.rollout_id,
        set_by=row.set_by,
        set_at=row.set_at,
        cleared_at=row.cleared_at,
        in_effect=in_effect,
    )
