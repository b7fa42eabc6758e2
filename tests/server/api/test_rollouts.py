"""Rollouts over the API: planned from a selection, steered with the right ETag, explained."""

from datetime import timedelta

import pytest
from httpx2 import Response

from tests.support.api_server import Api
from wavegate_server.adapters.database.connection import write
from wavegate_server.adapters.database.tables import GateDecision, Rollout, RolloutDevice
from wavegate_server.adapters.store.tokens import Role

URL = "/api/v1/rollouts"


@pytest.fixture
def fleet(api: Api) -> Api:
    api.add_active(kiosk_1={"ring": "early"}, kiosk_2={"ring": "late"}, kiosk_3={"ring": "late", "site": "hamburg"})
    api.client.post("/api/v1/devices", json={"id": "pending-1", "class": "edge-a", "site": "berlin"})
    return api


def plan(api: Api, devices: dict[str, object], **extra: object) -> Response:
    return api.client.post(URL, json={"model": "pairs", "version": 1, "devices": devices, **extra})


@pytest.mark.parametrize(
    ("devices", "chosen"),
    [
        ({"all": True}, {"kiosk-1", "kiosk-2", "kiosk-3"}),
        ({"ids": ["kiosk-3", "kiosk-1"]}, {"kiosk-1", "kiosk-3"}),
        ({"filter": {"site": "berlin"}}, {"kiosk-1", "kiosk-2"}),
        ({"filter": {"class": "edge-a", "labels": {"ring": "late"}}}, {"kiosk-2", "kiosk-3"}),
    ],
)
def test_a_selection_becomes_waves_of_active_devices(fleet: Api, devices: dict[str, object], chosen: set[str]) -> None:
    answer = plan(fleet, devices, policy={"waves": [{"name": "canary", "count": 1}, {"percent": 100}]})
    assert answer.status_code == 201, answer.text
    rollout = answer.json()
    assert answer.headers["location"] == f"{URL}/{rollout['id']}"
    assert {member["device"] for wave in rollout["wave_list"] for member in wave["devices"]} == chosen
    assert (rollout["wave_list"][0]["name"], rollout["wave_list"][0]["size"]) == ("canary", 1)
    assert (rollout["state"], rollout["created_by"], rollout["policy"]["soak_s"]) == ("scheduled", "admin", 3600)


@pytest.mark.parametrize(
    ("devices", "extra", "code"),
    [
        ({}, {}, "invalid"),
        ({"all": True, "ids": ["kiosk-1"]}, {}, "invalid"),
        ({"ids": []}, {}, "invalid"),
        ({"filter": {"colour": "red"}}, {}, "invalid"),
        ({"filter": {"site": "nowhere"}}, {}, "conflict"),
        ({"ids": ["kiosk-9"]}, {}, "not_found"),
        ({"ids": ["pending-1"]}, {}, "conflict"),
        ({"all": True}, {"version": 2}, "conflict"),
        ({"all": True}, {"version": 9}, "not_found"),
        ({"all": True}, {"model": "none"}, "not_found"),
        ({"all": True}, {"policy": {"soak": 3}}, "invalid"),
        ({"all": True}, {"policy": {"soak_s": -1}}, "invalid"),
        ({"all": True}, {"policy": {"waves": [{"percent": 10, "count": 1}]}}, "invalid"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(
    fleet: Api, devices: dict[str, object], extra: dict[str, object], code: str
) -> None:
    answer = plan(fleet, devices, **extra)
    assert answer.json()["code"] == code, answer.text
    assert fleet.client.get(URL).json()["items"] == []


def test_numbers_that_json_does_not_have_are_refused(fleet: Api) -> None:
    for number in ("NaN", "Infinity", "1e999"):
        text = f'{{"model": "pairs", "version": 1, "devices": {{"all": true}}, "policy": {{"soak_s": {number}}}}}'
        answer = fleet.client.post(URL, content=text, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


def test_a_device_is_in_one_unfinished_rollout_at_a_time(fleet: Api) -> None:
    fleet.rollout("kiosk-1")
    assert plan(fleet, {"all": True}).json()["code"] == "conflict"


def test_a_repeated_plan_with_a_key_is_one_rollout(fleet: Api) -> None:
    answers = [
        fleet.client.post(
            URL, json={"model": "pairs", "version": 1, "devices": {"all": True}}, headers={"Idempotency-Key": "once"}
        )
        for _ in range(2)
    ]
    assert answers[0].json() == answers[1].json()
    assert answers[0].headers["etag"] == answers[1].headers["etag"]
    assert len(fleet.client.get(URL).json()["items"]) == 1


def test_an_action_needs_the_etag_and_repeating_it_changes_nothing(fleet: Api) -> None:
    url = f"{URL}/{fleet.rollout('kiosk-1')['id']}"
    assert fleet.client.post(f"{url}/pause").status_code == 428
    assert fleet.client.post(f"{url}/pause", headers={"If-Match": '"99"'}).status_code == 412
    assert fleet.client.get(url).json()["state"] == "scheduled"
    tag = fleet.client.get(url).headers["etag"]
    paused = fleet.client.post(f"{url}/pause", json={"reason": "holiday"}, headers={"If-Match": tag})
    assert (paused.status_code, paused.json()["state"]) == (200, "paused")
    assert paused.json()["reason"] == "paused by admin: holiday"
    again = fleet.client.post(f"{url}/pause", headers={"If-Match": tag})
    assert (again.status_code, again.headers["etag"]) == (200, paused.headers["etag"])
    assert fleet.client.post(f"{url}/abort", headers={"If-Match": tag}).status_code == 412


def test_the_actions_lead_through_a_rollouts_life(fleet: Api) -> None:
    url = f"{URL}/{fleet.rollout('kiosk-1', require_approval=True)['id']}"
    states = [fleet.client.get(url).json()["state"]]
    for action in ("approve", "pause", "resume", "abort"):
        states.append(fleet.client.post(f"{url}/{action}", headers={"If-Match": "*"}).json()["state"])
    assert states == ["draft", "scheduled", "paused", "scheduled", "cancelled"]
    assert fleet.client.post(f"{url}/resume", headers={"If-Match": "*"}).json()["code"] == "conflict"


def test_a_running_rollout_is_rolled_back(fleet: Api) -> None:
    rollout = fleet.rollout("kiosk-1")["id"]
    with write(fleet.context.engine) as session:
        row = session.get_one(Rollout, rollout)
        row.state, row.started_at = "running", fleet.clock()
        member = session.get_one(RolloutDevice, (rollout, "kiosk-1"))
        member.state, member.swapped_at = "swapped", fleet.clock()
        session.add_all([row, member])
    headers = {"If-Match": fleet.client.get(f"{URL}/{rollout}").headers["etag"]}
    answer = fleet.client.post(f"{URL}/{rollout}/rollback", json={"reason": "complaints"}, headers=headers)
    assert answer.json()["state"] in ("rolling_back", "rolled_back")
    assert "complaints" in answer.json()["reason"]


def test_rollouts_are_listed_newest_first_by_model_and_state(fleet: Api) -> None:
    first = fleet.rollout("kiosk-1")["id"]
    fleet.clock.forward(minutes=1)
    second = fleet.rollout("kiosk-2")["id"]
    page = fleet.client.get(URL, params={"limit": 1}).json()
    rest = fleet.client.get(URL, params={"limit": 1, "cursor": page["next_cursor"]}).json()
    assert [page["items"][0]["id"], rest["items"][0]["id"], rest["next_cursor"]] == [second, first, None]
    assert fleet.client.get(URL, params={"state": "completed"}).json()["items"] == []
    assert len(fleet.client.get(URL, params={"model": "pairs", "state": "scheduled"}).json()["items"]) == 2
    assert fleet.client.get(URL, params={"state": "lost"}).status_code == 422


def test_why_says_state_gate_and_failed_devices_in_sentences(fleet: Api) -> None:
    rollout = fleet.rollout("kiosk-1", "kiosk-2")["id"]
    with write(fleet.context.engine) as session:
        session.add(
            GateDecision(
                rollout_id=rollout, wave=0, at=fleet.clock() + timedelta(hours=1), verdict="rollback",
                sentence="wrong on 7 of 10 devices", final=True, evidence={"n": 10},
            )
        )  # fmt: skip
        member = session.get_one(RolloutDevice, (rollout, "kiosk-2"))
        member.state, member.code = "failed", "golden_failed"
        session.add(member)
    why = fleet.client.get(f"{URL}/{rollout}/why").json()
    assert [step["sentence"] for step in why["steps"]] == [
        "pairs v1 is scheduled: waits for its start",
        "After wave 1 the gate said rollback: wrong on 7 of 10 devices",
        "1 ended with golden_failed: kiosk-2",
    ]
    gates = fleet.client.get(f"{URL}/{rollout}").json()["gates"]
    assert (gates[0]["verdict"], gates[0]["evidence"]) == ("rollback", {"n": 10})


def test_an_unknown_rollout_is_not_found(api: Api) -> None:
    for path in ("", "/why"):
        assert api.client.get(f"{URL}/r-none{path}").json()["code"] == "not_found"
    for action in ("pause", "resume", "approve", "abort", "rollback"):
        assert api.client.post(f"{URL}/r-none/{action}", headers={"If-Match": "*"}).json()["code"] == "not_found"


def test_a_publisher_steers_no_rollout(fleet: Api) -> None:
    headers = {**fleet.as_role(Role.PUBLISHER), "If-Match": "*"}
    assert fleet.client.post(f"{URL}/{fleet.rollout('kiosk-1')['id']}/abort", headers=headers).status_code == 403
