"""Devices: register, list, look at, explain, shut out."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response
from sqlmodel import Session

from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.reads.device import device_detail, device_events, device_history, device_why
from wavegate_server.adapters.reads.fleet import DeviceFilter, Health, device_rows
from wavegate_server.adapters.reads.series import RANGES, device_series
from wavegate_server.adapters.store import audit
from wavegate_server.adapters.store.devices import change_device, create_device, get_device, remove_model
from wavegate_server.adapters.store.rollout_view import touch
from wavegate_server.adapters.trust import enrolment
from wavegate_server.api.auth import DeviceWriter, Reader
from wavegate_server.api.context import Context, Ctx
from wavegate_server.api.device_views import (
    DeviceChange,
    DeviceSummary,
    DeviceToken,
    DeviceView,
    EventView,
    Explanation,
    HistoryAnswer,
    HistoryView,
    NewDevice,
    NewDeviceAnswer,
    RemoveRequest,
    RevokeRequest,
    SeriesView,
)
from wavegate_server.api.etags import IfMatch, check_match, etag
from wavegate_server.api.once import OnceKey
from wavegate_server.api.pages import Page, Paging, page_of
from wavegate_server.api.problems import problem_responses
from wavegate_shared.errors import UsageError

__all__ = ["router"]

router = APIRouter(tags=["devices"])
DeviceName = Annotated[str, Path(max_length=63, examples=["kiosk-1"])]
OneModel = Annotated[
    str | None, Query(max_length=63, description="a model of the device; left out: the one that stands for it")
]


def _filter(
    hardware_class: Annotated[str | None, Query(alias="class", max_length=63)] = None,
    site: Annotated[str | None, Query(max_length=63)] = None,
    state: Annotated[str | None, Query(pattern="^(pending|active|revoked)$")] = None,
    health: Health | None = None,
    text: Annotated[str, Query(max_length=63, description="part of the id")] = "",
    model: Annotated[str | None, Query(max_length=63)] = None,
    version: Annotated[int | None, Query(ge=0, le=2**31 - 1, description="running version; needs `model`")] = None,
    label: Annotated[list[str] | None, Query(max_length=32, description="`key:value`, may be given again")] = None,
) -> DeviceFilter:
    return DeviceFilter(
        text=text,
        health=health,
        hardware_class=hardware_class,
        site=site,
        model=model,
        version=version,
        state=state,
        labels=tuple(_label(item) for item in label or ()),
    )


Filter = Annotated[DeviceFilter, Depends(_filter)]


@router.get("/devices", operation_id="list_devices", summary="List devices")
def list_devices(context: Ctx, chosen: Filter, page: Paging, _: Reader) -> Page[DeviceSummary]:
    """In the order of their ids; every filter given must hold."""
    with read(context.engine) as session:
        rows = device_rows(session, context.clock(), chosen, cursor=page.cursor, limit=page.limit)
    return page_of(rows, DeviceSummary.model_validate)


@router.post(
    "/devices",
    operation_id="create_device",
    summary="Register a device",
    status_code=201,
    response_model=NewDeviceAnswer,
    responses=problem_responses(409),
)
def new_device(body: NewDevice, context: Ctx, once: OnceKey, who: DeviceWriter) -> Response:
    """Registers it and, unless `token` is false, makes its enrolment token, which is shown this once."""
    now = context.clock()
    with write(context.engine) as session:
        if replayed := once.replay(session):
            return replayed
        device = create_device(
            session,
            body.id,
            hardware_class=body.hardware_class,
            site=body.site,
            labels=body.labels,
            bench=body.bench,
            actor=who.name,
            now=now,
        )
        session.flush()
        token = _token(session, context, body.id, who.name) if body.token else None
        answer = NewDeviceAnswer(device=_view(session, context, body.id), token=token)
        headers = {"Location": f"/api/v1/devices/{body.id}", "ETag": etag(device.revision)}
        return once.answer(session, answer, status=201, headers=headers, secret=token is not None)


@router.get(
    "/devices/{device_id}", operation_id="get_device", summary="Look at a device", responses=problem_responses(404)
)
def show_device(device_id: DeviceName, context: Ctx, response: Response, _: Reader) -> DeviceView:
    """With the ETag that a change of it needs."""
    with read(context.engine) as session:
        view = _view(session, context, device_id)
    response.headers["ETag"] = etag(view.revision)
    return view


@router.patch(
    "/devices/{device_id}",
    operation_id="change_device",
    summary="Change a device's site, labels or benching",
    responses=problem_responses(404, 412, 428),
)
def patch_device(
    device_id: DeviceName,
    body: DeviceChange,
    context: Ctx,
    response: Response,
    who: DeviceWriter,
    if_match: IfMatch = None,
) -> DeviceView:
    """Rollouts that run keep the waves they were planned with."""
    with write(context.engine) as session:
        device = get_device(session, device_id)
        check_match(if_match, device.revision)
        change_device(
            session,
            device,
            site=body.site,
            labels=body.labels,
            bench=body.bench,
            actor=who.name,
            now=context.clock(),
        )
        session.flush()
        view = _view(session, context, device_id)
    response.headers["ETag"] = etag(view.revision)
    return view


@router.post(
    "/devices/{device_id}/token",
    operation_id="create_device_token",
    summary="Make an enrolment token",
    status_code=201,
    response_model=DeviceToken,
    responses=problem_responses(404, 409),
)
def new_device_token(device_id: DeviceName, context: Ctx, once: OnceKey, who: DeviceWriter) -> Response:
    """One use, 24 hours; tokens made before for this device end."""
    with write(context.engine) as session:
        if replayed := once.replay(session):
            return replayed
        get_device(session, device_id)
        token = _token(session, context, device_id, who.name)
        return once.answer(session, token, status=201, secret=True)


@router.post(
    "/devices/{device_id}/revoke",
    operation_id="revoke_device",
    summary="Shut a device out",
    responses=problem_responses(404, 412, 428),
)
def revoke(
    device_id: DeviceName,
    context: Ctx,
    response: Response,
    who: DeviceWriter,
    body: RevokeRequest | None = None,
    if_match: IfMatch = None,
) -> DeviceView:
    """Its certificate is put on the revocation list, ingest drops its messages, and the broker disconnects it.

    Idempotent: repeating the call has no further effect.
    """
    now, reason = context.clock(), body.reason if body else ""
    with write(context.engine) as session:
        device = get_device(session, device_id)
        if device.state != "revoked":
            check_match(if_match, device.revision)
            enrolment.revoke_device(session, device_id, now, reason=reason)
            touch(session, (device_id,))
            subject, detail = f"device/{device_id}", {"reason": reason}
            audit.append(session, actor=who.name, action="device.revoke", subject=subject, now=now, detail=detail)
        session.flush()
        serials = enrolment.revoked_serials(session, now)
        view = _view(session, context, device_id)
    context.authority.crl(serials, now)  # after the commit: the table is the truth, the list is made from it
    response.headers["ETag"] = etag(view.revision)
    return view


@router.post(
    "/devices/{device_id}/models/{model}/remove",
    operation_id="remove_device_model",
    summary="Take a model away from a device",
    responses=problem_responses(404, 409),
)
def remove(
    device_id: DeviceName,
    model: Annotated[str, Path(max_length=63)],
    context: Ctx,
    who: DeviceWriter,
    body: RemoveRequest | None = None,
) -> DeviceView:
    """By a signed assignment; the device's other models are not touched.

    Idempotent: repeating the call has no further effect.
    """
    now, reason = context.clock(), body.reason if body else ""
    with write(context.engine) as session:
        remove_model(session, context.assignments, device_id, model, actor=who.name, reason=reason, now=now)
        session.flush()
        return _view(session, context, device_id)


@router.get(
    "/devices/{device_id}/why",
    operation_id="explain_device",
    summary="Why is this device on this version",
    responses=problem_responses(404),
)
def explain_device(device_id: DeviceName, context: Ctx, _: Reader, model: OneModel = None) -> Explanation:
    """The chain from what runs, over its assignment and the device's signed report, to the gate and the rollout."""
    with read(context.engine) as session:
        return Explanation.model_validate(device_why(session, device_id, model))


@router.get(
    "/devices/{device_id}/events",
    operation_id="list_device_events",
    summary="A device's event log",
    responses=problem_responses(404),
)
def list_events(device_id: DeviceName, context: Ctx, page: Paging, _: Reader) -> Page[EventView]:
    """Newest first."""
    with read(context.engine) as session:
        get_device(session, device_id)
        rows = device_events(session, device_id, cursor=page.cursor, limit=page.limit)
    return page_of(rows, EventView.model_validate)


@router.get(
    "/devices/{device_id}/reports",
    operation_id="list_device_reports",
    summary="How a device's assignments ended",
    responses=problem_responses(404),
)
def list_reports(
    device_id: DeviceName, context: Ctx, _: Reader, limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> HistoryAnswer:
    """From its signed reports, newest first."""
    with read(context.engine) as session:
        get_device(session, device_id)
        history = device_history(session, device_id, limit=limit)
    return HistoryAnswer(items=[HistoryView.model_validate(row) for row in history])


@router.get(
    "/devices/{device_id}/series",
    operation_id="get_device_series",
    summary="Latency, accuracy and memory over time",
    responses=problem_responses(404),
)
def get_series(
    device_id: DeviceName,
    context: Ctx,
    _: Reader,
    model: OneModel = None,
    span: Annotated[str, Query(alias="range", pattern=f"^({'|'.join(RANGES)})$")] = "1h",
) -> SeriesView:
    """p50, p95 and p99 from merged histograms, the live metric, memory and the moments of version swaps."""
    with read(context.engine) as session:
        series = device_series(session, context.clock(), device_id, range_s=RANGES[span], model=model)
    return SeriesView.model_validate(series)


def _view(session: Session, context: Context, device_id: str) -> DeviceView:
    return DeviceView.of(device_detail(session, context.clock(), device_id))


def _token(session: Session, context: Context, device_id: str, actor: str) -> DeviceToken:
    now = context.clock()
    text = enrolment.create_token(session, context.authority, device_id, now=now)
    audit.append(session, actor=actor, action="device.token", subject=f"device/{device_id}", now=now)
    return DeviceToken(device=device_id, token=text, expires_at=now + enrolment.TOKEN_TTL)


def _label(text: str) -> tuple[str, str]:
    key, colon, value = text.partition(":")
    if not (key and colon and value):
        raise UsageError("invalid", f"label {text!r} is not key:value")
    return key, value
