"""Fleet defaults over the API: set, listed, cleared; a completed rollout leaves one; what is wrong is refused."""

import pytest

from tests.support.api_server import Api
from wavegate_server.adapters.store.tokens import Role

URL = "/api/v1/fleet/defaults"


@pytest.fixture
def fleet(api: Api) -> Api:
    api.add_active(kiosk_1={"ring": "early"}, kiosk_2={})
    return api


def test_a_default_is_set_listed_and_cleared(fleet: Api) -> None:
    chosen = {"filter": {"class": "edge-a", "labels": {"ring": "early"}}}
    made = fleet.client.post(URL, json={"model": "pairs", "version": 1, "devices": chosen})
    assert made.status_code == 201, made.text
    one = made.json()
    assert (one["devices"], one["version"], one["set_by"], one["rollout"], one["in_effect"]) == (
        "class=edge-a,label.ring=early",
        1,
        "admin",
        None,
        True,
    )
    assert fleet.client.get(URL, params={"model": "pairs"}).json()["items"] == [one]
    assert fleet.client.get(URL, params={"model": "other"}).json()["items"] == []
    for _ in range(2):
        cleared = fleet.client.post(f"{URL}/{one['id']}/clear")
        assert (cleared.status_code, cleared.json()["in_effect"]) == (200, False)
        assert cleared.json()["cleared_at"] is not None
    assert fleet.client.get(URL).json()["items"] == []


def test_a_repeat_with_a_key_sets_it_once(fleet: Api) -> None:
    body = {"model": "pairs", "version": 1, "devices": {"all": True}}
    answers = [fleet.client.post(URL, json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert len(fleet.client.get(URL).json()["items"]) == 1


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        ({"devices": {"ids": ["kiosk-1"]}}, 422, "invalid", "not for single devices"),
        ({"devices": {"filter": {"model": "pairs", "version": 1}}}, 422, "invalid", "not for single devices"),
        ({"devices": {"filter": {"site": "nowhere"}}}, 409, "conflict", "no registered device fits"),
        ({"version": 9, "devices": {"all": True}}, 404, "not_found", "no version 9"),
        ({"devices": {"filter": {"colour": "red"}}}, 422, "invalid", "colour"),
        ({"devices": {}}, 422, "invalid", "exactly one"),
    ],
)
def test_what_cannot_be_a_default_is_refused_and_nothing_is_lost(
    fleet: Api, body: dict[str, object], status: int, code: str, says: str
) -> None:
    fleet.client.post(URL, json={"model": "pairs", "version": 1, "devices": {"all": True}})
    answer = fleet.client.post(URL, json={"model": "pairs", "version": 1, **body})
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:wavegate:error:{code}")
    assert says in answer.text
    assert len(fleet.client.get(URL).json()["items"]) == 1


def test_a_default_for_devices_to_come_is_asked_for(fleet: Api) -> None:
    body = {"model": "pairs", "version": 1, "devices": {"filter": {"site": "nowhere"}}, "ahead": True}
    assert fleet.client.post(URL, json=body).status_code == 201


def test_clearing_one_that_is_not_there(fleet: Api) -> None:
    assert fleet.client.post(f"{URL}/7/clear").status_code == 404


def test_viewers_may_look_only(fleet: Api) -> None:
    viewer = fleet.as_role(Role.VIEWER)
    assert fleet.client.get(URL, headers=viewer).status_code == 200
    body = {"model": "pairs", "version": 1, "devices": {"all": True}}
    assert fleet.client.post(URL, json=body, headers=viewer).status_code == 403
    assert fleet.client.post(f"{URL}/1/clear", headers=viewer).status_code == 403
