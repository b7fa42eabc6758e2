"""API tokens: made by an administrator, shown once, listed without secrets, ended at once."""

import pytest

from tests.support.api_server import Api
from wavegate_server.adapters.store.tokens import Role

URL = "/api/v1/tokens"


def test_a_token_is_shown_once_and_listed_without_its_secret(api: Api) -> None:
    made = api.client.post(URL, json={"name": "ci", "role": "publisher", "days": 90})
    assert made.status_code == 201
    token = made.json()["token"]
    assert token.startswith("wgt_")
    assert made.json()["expires_at"] == "2026-05-30T12:00:00Z"
    listed = api.client.get(URL)
    assert token not in listed.text
    assert [(t["name"], t["role"], token.startswith(t["prefix"])) for t in listed.json()["items"]][1:] == [
        ("ci", "publisher", True)
    ]


def test_a_repeat_with_a_key_does_not_show_the_secret_again(api: Api) -> None:
    headers = {"Idempotency-Key": "k"}
    answers = [api.client.post(URL, json={"name": "ci", "role": "viewer"}, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 409]
    assert len(api.client.get(URL).json()["items"]) == 2


def test_tokens_are_paged(api: Api) -> None:
    for number in range(3):
        api.client.post(URL, json={"name": f"t{number}", "role": "viewer"})
    first = api.client.get(URL, params={"limit": 3}).json()
    rest = api.client.get(URL, params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert [t["name"] for t in first["items"] + rest["items"]] == ["admin", "t0", "t1", "t2"]
    assert rest["next_cursor"] is None


def test_a_revoked_token_is_refused_at_once(api: Api) -> None:
    made = api.client.post(URL, json={"name": "ci", "role": "viewer"}).json()
    headers = {"Authorization": f"Bearer {made['token']}"}
    assert api.client.get("/api/v1/devices", headers=headers).status_code == 200
    for _ in range(2):
        assert api.client.post(f"{URL}/{made['id']}/revoke").json()["revoked"] is True
    assert api.client.get("/api/v1/devices", headers=headers).status_code == 401


def test_making_and_ending_a_token_is_in_the_audit_log(api: Api) -> None:
    from sqlmodel import select

    from wavegate_server.adapters.database.connection import read
    from wavegate_server.adapters.database.tables import AuditEvent

    number = api.client.post(URL, json={"name": "ci", "role": "viewer"}).json()["id"]
    api.client.post(f"{URL}/{number}/revoke")
    with read(api.context.engine) as session:
        found = [(row.action, row.subject, row.actor) for row in session.exec(select(AuditEvent))][-2:]
    assert found == [("token.create", f"token/{number}", "admin"), ("token.revoke", f"token/{number}", "admin")]


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.PUBLISHER])
def test_only_an_administrator_sees_tokens(api: Api, role: Role) -> None:
    assert api.client.get(URL, headers=api.as_role(role)).status_code == 403


@pytest.mark.parametrize(
    "body", [{}, {"name": "x"}, {"name": "x", "role": "king"}, {"name": "x", "role": "admin", "days": 0}]
)
def test_a_body_that_does_not_fit_makes_no_token(api: Api, body: dict[str, object]) -> None:
    assert api.client.post(URL, json=body).status_code == 422
    assert len(api.client.get(URL).json()["items"]) == 1


def test_an_unknown_number_is_not_found(api: Api) -> None:
    assert api.client.post(f"{URL}/99/revoke").json()["code"] == "not_found"
