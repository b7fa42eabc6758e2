"""Who may call what: tokens, roles, cookies and where a change comes from."""

import re

import pytest

from tests.support.api_server import Api
from wavegate_server.adapters.database.connection import write
from wavegate_server.adapters.store.tokens import (
    SESSION_COOKIE,
    Principal,
    Role,
    Scope,
    create_token,
    revoke_token,
    start_session,
)
from wavegate_server.api.auth import principal_of, require, same_origin

DEVICE = {"id": "kiosk-1", "class": "edge-a", "site": "berlin"}
CALLS = {
    Scope.READ: ("GET", "/api/v1/devices", None),
    Scope.DEVICES: ("POST", "/api/v1/devices", DEVICE),
    Scope.MODELS: ("POST", "/api/v1/models/pairs/versions/2/publish", None),
    Scope.ROLLOUTS: ("POST", "/api/v1/rollouts/r-none/pause", None),
    Scope.TOKENS: ("POST", "/api/v1/tokens", {"name": "x", "role": "viewer"}),
}
ALLOWED = {
    Role.VIEWER: {Scope.READ},
    Role.OPERATOR: {Scope.READ, Scope.DEVICES, Scope.ROLLOUTS},
    Role.PUBLISHER: {Scope.READ, Scope.MODELS},
    Role.ADMIN: set(Scope),
}


@pytest.mark.parametrize("role", Role)
def test_each_role_may_do_what_it_is_for_and_nothing_else(api: Api, role: Role) -> None:
    headers = api.as_role(role)
    for scope, (method, path, body) in CALLS.items():
        answer = api.client.request(method, path, json=body, headers=headers)
        assert (answer.status_code != 403) is (scope in ALLOWED[role]), (scope, answer.text)


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wgt_wrong", "Basic d2d0Xw==", "wgt_wrong"])
def test_without_a_valid_token_the_answer_is_401_and_says_how(api: Api, header: str) -> None:
    answer = api.client.get("/api/v1/devices", headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["type"] == "urn:wavegate:error:unauthenticated"


def test_every_documented_operation_needs_a_token_but_those_that_prove_themselves(api: Api) -> None:
    public = set()
    for path, operations in api.client.get("/api/v1/openapi.json").json()["paths"].items():
        for method, operation in operations.items():
            url = re.sub(r"\{\w+\}", "1", path)
            answer = api.client.request(method, url, headers={"Authorization": ""})
            if answer.status_code != 401:
                public.add(operation["operationId"])
    assert public == {"health", "get_ca", "enrol_device", "renewal_challenge", "renew_device"}


def test_an_expired_and_a_revoked_token_are_refused(api: Api) -> None:
    short = api.client.post("/api/v1/tokens", json={"name": "short", "role": "viewer", "days": 1}).json()
    ended = api.client.post("/api/v1/tokens", json={"name": "ended", "role": "viewer"}).json()
    for token in (short, ended):
        assert _get(api, token["token"]) == 200
    with write(api.context.engine) as session:
        revoke_token(session, ended["id"])
    api.clock.forward(days=1)
    assert _get(api, short["token"]) == 401
    assert _get(api, ended["token"]) == 401


def test_a_browser_session_reads_and_changes_only_from_a_page_of_this_server(api: Api) -> None:
    api.client.headers.pop("authorization")
    api.client.cookies.set(SESSION_COOKIE, _session(api))
    assert api.client.get("/api/v1/devices").status_code == 200
    for origin, status in (
        (None, 403),
        ("https://evil.example", 403),
        ("http://testserver", 403),
        ("https://testserver", 201),
    ):
        headers = {} if origin is None else {"Origin": origin}
        assert api.client.post("/api/v1/devices", json=DEVICE, headers=headers).status_code == status, origin


def test_a_wrong_token_is_not_rescued_by_a_good_cookie(api: Api) -> None:
    api.client.cookies.set(SESSION_COOKIE, _session(api))
    assert _get(api, "wgt_wrong") == 401


def test_the_names_the_dashboard_uses_are_there() -> None:
    assert all(callable(name) for name in (principal_of, same_origin, require(Scope.READ)))


def _get(api: Api, token: str) -> int:
    return api.client.get("/api/v1/devices", headers={"Authorization": f"Bearer {token}"}).status_code


def _session(api: Api) -> str:
    with write(api.context.engine) as session:
        create_token(session, name="x", role=Role.ADMIN, now=api.clock())
        return start_session(session, Principal("x", Role.ADMIN, 2), api.clock())
