"""Idempotency-Key: done once, answered the same, for a day, per caller."""

from concurrent.futures import ThreadPoolExecutor

from sqlmodel import select

from tests.support.api_server import Api
from wavegate_server.adapters.database.connection import read
from wavegate_server.adapters.database.tables import Device, IdempotencyKey
from wavegate_server.adapters.store.tokens import Role

URL = "/api/v1/devices"
KEY = {"Idempotency-Key": "k"}


def body(device: str = "kiosk-1") -> dict[str, object]:
    return {"id": device, "class": "edge-a", "site": "berlin", "token": False}


def test_a_repeat_is_answered_as_the_first_time_with_its_headers(api: Api) -> None:
    first, second = (api.client.post(URL, json=body(), headers=KEY) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert first.headers["location"] == second.headers["location"]
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"


def test_without_a_key_a_repeat_is_done_again(api: Api) -> None:
    api.client.post(URL, json=body())
    assert api.client.post(URL, json=body()).status_code == 409


def test_the_same_key_with_another_body_is_refused(api: Api) -> None:
    api.client.post(URL, json=body(), headers=KEY)
    answer = api.client.post(URL, json=body("kiosk-2"), headers=KEY)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


def test_a_key_is_its_callers_and_its_addresss_own(api: Api) -> None:
    api.client.post(URL, json=body(), headers=KEY)
    other = api.client.post(URL, json=body("kiosk-2"), headers={**KEY, **api.as_role(Role.OPERATOR)})
    assert other.status_code == 201
    assert api.client.post("/api/v1/tokens", json={"name": "x", "role": "viewer"}, headers=KEY).status_code == 201


def test_a_failure_is_not_kept(api: Api) -> None:
    api.client.post(URL, json=body(), headers={"Idempotency-Key": "other"})
    assert api.client.post(URL, json=body(), headers=KEY).status_code == 409
    with read(api.context.engine) as session:
        assert len(session.exec(select(IdempotencyKey)).all()) == 1


def test_after_a_day_the_key_is_free_and_swept(api: Api) -> None:
    api.client.post(URL, json=body(), headers=KEY)
    api.clock.forward(days=1)
    headers = {**KEY, "Authorization": api.client.headers["authorization"]}
    assert api.client.post(URL, json=body(), headers=headers).status_code == 409  # done again, and found taken
    api.client.post(URL, json=body("kiosk-2"), headers=KEY)
    with read(api.context.engine) as session:
        assert len(session.exec(select(IdempotencyKey)).all()) == 1


def test_twins_at_the_same_moment_make_one_device(api: Api) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: api.client.post(URL, json=body(), headers=KEY), range(8)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    with read(api.context.engine) as session:
        assert len(session.exec(select(Device)).all()) == 1


def test_an_empty_or_endless_key_is_invalid(api: Api) -> None:
    for key in ("", "x" * 201):
        assert api.client.post(URL, json=body(), headers={"Idempotency-Key": key}).status_code == 422
