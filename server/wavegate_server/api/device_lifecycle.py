"""A device's identity over its life: given anew, or handed over to other hardware. Enrolment itself: `enrol`; revoking: `devices`."""

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from wavegate_server.adapters.database.connection import write
from wavegate_server.adapters.store import audit
from wavegate_server.adapters.store.devices import get_device, hand_over
from wavegate_server.adapters.store.rollout_view import touch
from wavegate_server.adapters.trust import enrolment
from wavegate_server.api.auth import DeviceWriter
from wavegate_server.api.context import Ctx
from wavegate_server.api.device_views import DeviceId, DeviceToken
from wavegate_server.api.devices import DeviceName
from wavegate_server.api.once import OnceKey
from wavegate_server.api.problems import problem_responses

__all__ = ["router"]

router = APIRouter(tags=["devices"])


class Reason(BaseModel):
    """Why, kept in the audit log."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"reason": "SD card was copied"}]})

    reason: str = Field(default="", max_length=300)


class Replacement(BaseModel):
    """The id of the new hardware."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"new": "kiosk-1b"}]})

    new: DeviceId
    reason: str = Field(default="", max_length=300)


@router.post(
    "/devices/{device_id}/reissue",
    operation_id="reissue_device",
    summary="End a device's identity and make a token for a new one",
    status_code=201,
    response_model=DeviceToken,
    responses=problem_responses(404, 409),
)
def reissue(
    device_id: DeviceName, context: Ctx, once: OnceKey, who: DeviceWriter, body: Reason | None = None
) -> Response:
    """Every machine that uses the identity is shut out; the one that enrols with the token goes on in its place."""
    now = context.clock()
    with write(context.engine) as session:
        if replayed := once.replay(session):
            return replayed
        get_device(session, device_id)
        text = enrolment.reissue(session, context.authority, device_id, now=now)
        detail = {"reason": body.reason if body else ""}
        subject = f"device/{device_id}"
        audit.append(session, actor=who.name, action="device.reissue", subject=subject, now=now, detail=detail)
        token = DeviceToken(device=device_id, token=text, expires_at=now + enrolment.TOKEN_TTL)
        serials = enrolment.revoked_serials(session, now)
        answer = once.answer(session, token, status=201, secret=True)
    context.authority.crl(serials, now)
    return answer


@router.post(
    "/devices/{device_id}/replace",
    operation_id="replace_device",
    summary="Put new hardware in a device's place",
    status_code=201,
    response_model=DeviceToken,
    responses=problem_responses(404, 409),
)
def replace(device_id: DeviceName, body: Replacement, context: Ctx, once: OnceKey, who: DeviceWriter) -> Response:
    """The new device takes over class, site, labels and what the old one runs; the old one is revoked. Gives the new one's token."""
    now = context.clock()
    with write(context.engine) as session:
        if replayed := once.replay(session):
            return replayed
        old = get_device(session, device_id)
        hand_over(session, context.assignments, old, body.new, actor=who.name, now=now)
        enrolment.revoke_device(session, device_id, now, reason=body.reason or f"replaced by {body.new}")
        touch(session, (device_id,))
        text = enrolment.create_token(session, context.authority, body.new, now=now)
        token = DeviceToken(device=body.new, token=text, expires_at=now + enrolment.TOKEN_TTL)
        serials = enrolment.revoked_serials(session, now)
        answer = once.answer(session, token, status=201, secret=True)
    context.authority.crl(serials, now)
    return answer
