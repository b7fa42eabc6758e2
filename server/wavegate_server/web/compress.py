"""The forms of a model's page that start and cancel a compression job. The API's functions do the work.

A form that is refused comes back on its page: the message at the field, and what was typed still in it.
"""

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from wavegate_server.adapters.database.connection import write
from wavegate_server.adapters.store.compress_jobs import ask_cancel, check_time, create_job, get_job
from wavegate_server.adapters.store.tokens import Principal, Scope
from wavegate_server.api.auth import same_origin
from wavegate_server.core.sentences import Sentence
from wavegate_server.web.forms import FormProblem
from wavegate_server.web.model_page import model_page
from wavegate_server.web.page_context import PageContext
from wavegate_server.web.render import HEADERS
from wavegate_shared.errors import UsageError

__all__ = ["add_compress"]

_BUDGET_MAX = 300


def add_compress(router: APIRouter, desk: PageContext) -> None:
    """`POST /models/{name}/compress` and `POST /compress-jobs/{id}/cancel`."""

    @router.post("/models/{name}/compress")
    def start(
        request: Request,
        name: str,
        version: Annotated[str, Form()] = "",
        budget: Annotated[str, Form()] = "",
        hardware_class: Annotated[str, Form(alias="class")] = "",
        minutes: Annotated[str, Form()] = "",
    ) -> Response:
        principal = _from_here(desk, request)
        typed = {"version": version, "budget": budget, "class": hardware_class, "minutes": minutes}
        try:
            _may(principal)
            job = _start(desk, name, typed, principal.name)
        except _Refused as refused:
            return model_page(request, desk, name, FormProblem.of(refused.error, refused.at, typed))
        return _back(name, job)

    @router.post("/compress-jobs/{job_id}/cancel")
    def cancel(request: Request, job_id: int) -> Response:
        principal = _from_here(desk, request)
        with desk.session() as session:
            model = get_job(session, job_id).model
        try:
            _may(principal)
            with write(desk.context.engine) as session:
                ask_cancel(session, job_id, actor=principal.name, now=desk.now())
        except _Refused as refused:
            return model_page(request, desk, model, FormProblem.of(refused.error))
        except UsageError as error:
            return model_page(request, desk, model, FormProblem.of(error))
        return _back(model, job_id)


class _Refused(Exception):
    """What is wrong with a form, and at which field."""

    def __init__(self, error: UsageError, at: str = "") -> None:
        super().__init__(error)
        self.error, self.at = error, at


def _start(desk: PageContext, name: str, typed: Mapping[str, str], actor: str) -> int:
    """The number of the new job. Raises _Refused."""
    at = "version"
    try:
        version = _number(typed["version"])
        at = "minutes"
        time_s = 60.0 * _number(typed["minutes"])
        check_time(time_s)
        at = "budget"
        budget = typed["budget"].strip()
        if len(budget) > _BUDGET_MAX:
            raise UsageError("invalid", Sentence("budget.long", number=len(budget), most=_BUDGET_MAX))
        with write(desk.context.engine) as session:
            job = create_job(
                session,
                model=name,
                version=version,
                budget=budget,
                device_class=typed["class"],
                time_s=time_s,
                actor=actor,
                now=desk.now(),
            )
            return job.id or 0
    except UsageError as error:
        raise _Refused(error, "version" if error.code in ("not_found", "conflict") else at) from error


def _from_here(desk: PageContext, request: Request) -> Principal:
    principal = desk.principal(request)
    if not same_origin(request):
        raise UsageError("forbidden", Sentence("refused.origin"))
    return principal


def _may(principal: Principal) -> None:
    if not principal.may(Scope.MODELS):
        raise _Refused(UsageError("forbidden", Sentence("refused.may_not_compress", name=principal.name)))


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise UsageError("invalid", Sentence("refused.number", value=repr(text[:20])))
    return int(text)


def _back(model: str, job: int) -> Response:
    return Response(status_code=303, headers={**HEADERS, "location": f"/models/{model}#job-{job}"})
