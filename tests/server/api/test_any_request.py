"""Requests made up from the OpenAPI document, fitting it or not: no operation fails (5xx) or answers what it does not declare."""

from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation

from tests.support.api_server import Api
from wavegate_server.adapters.store.tokens import Role

EXAMPLES = 2
"""For each operation, way of making requests, and choice of names; the whole test stays below 20 s."""
NAMES = {"device_id": "kiosk-1", "model": "pairs", "number": 2, "alias": "champion", "token_id": 2}
CHECKED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", GenerationMode)
def test_no_request_makes_an_operation_fail(api: Api, mode: GenerationMode) -> None:
    api.enrol("kiosk-1")
    api.token(Role.VIEWER)  # number 2, which may be revoked
    names = {**NAMES, "rollout_id": api.rollout("kiosk-1")["id"]}
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", api.client.app)
    statuses: list[int] = []
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        headers = api.as_role(Role.ADMIN)
        for known in ({}, {name: value for name, value in names.items() if f"{{{name}}}" in operation.path}):
            statuses += _try(operation, mode, known, headers)
    assert len(statuses) > 100
    assert {404, 422} <= set(statuses)


def _try(
    operation: APIOperation[Any, Any, Any, Any], mode: GenerationMode, known: dict[str, Any], headers: dict[str, str]
) -> list[int]:
    """The statuses of some requests to one operation; with `known` names they reach what exists, for any revision."""
    statuses: list[int] = []
    extra = {**headers, "If-Match": "*"} if known else headers

    @CHECKED
    @given(operation.as_strategy(mode, path_parameters=known or None))
    def ask(case: schemathesis.Case[Any]) -> None:
        answer = case.call(headers=extra)
        statuses.append(answer.status_code)
        told = f"{case.as_curl_command(extra)}\n{answer.status_code} {answer.text[:300]}"
        assert answer.status_code < 500 or (answer.status_code == 503 and "health" in operation.path), told
        assert str(answer.status_code) in operation.responses.status_codes or answer.status_code in (405, 404), told

    with suppress(Unsatisfiable):  # an operation that takes nothing cannot be asked wrongly
        ask()
    return statuses
