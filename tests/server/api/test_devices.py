"""Devices: registered, listed by filter, changed with the right ETag, shut out."""

from typing import Any

import pytest
from sqlmodel import select

from tests.support.api_server import NOW, Api
from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.database.tables import AuditEvent, DeviceEvent, DeviceSlot, Revision
from wavegate_server.adapters.store.tokens import Role
from wavegate_shared.enrolment import parse_token

URL = "/api/v1/devices"


def body(device: str = "kiosk-1", **extra: object) -> dict[str, object]:
    return {"id": device, "class": "edge-a", "site": "berlin", **extra}


def test_a_new_device_is_pending_and_gets_a_token_that_names_it(api: Api) -> None:
    answer = api.client.post(URL, json=body(labels={"ring": "early"}))
    assert answer.status_code == 201
    assert answer.headers["location"] == f"{URL}/kiosk-1"
    made = answer.json()
    assert (made["device"]["state"], made["device"]["class"], made["device"]["labels"]) == (
        "pending",
        "edge-a",
        {"ring": "early"},
    )
    assert parse_token(made["token"]["token"]).device == "kiosk-1"
    assert made["token"]["expires_at"] == "2026-03-02T12:00:00Z"


def test_a_device_can_be_made_without_a_token(api: Api) -> None:
    assert api.client.post(URL, json=body(token=False)).json()["token"] is None


@pytest.mark.parametrize("device", ["", "a/b", "a b", "#", "+", "-x", "x" * 64, "ключ", "publisher", "ingest-0"])
def test_an_id_that_is_no_topic_level_or_belongs_to_the_server_is_refused(api: Api, device: str) -> None:
    answer = api.client.post(URL, json=body(device))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


def test_an_id_that_is_taken_is_a_conflict(api: Api) -> None:
    api.client.post(URL, json=body())
    assert api.client.post(URL, json=body()).json()["code"] == "conflict"


def test_a_list_is_paged_and_filtered_by_class_site_state_label_and_version(api: Api) -> None:
    for number in range(5):
        site = "berlin" if number % 2 else "上海"
        api.client.post(URL, json=body(f"kiosk-{number}", site=site, labels={"ring": f"r{number}"}, token=False))
    with write(api.context.engine) as session:
        session.add(DeviceSlot(device_id="kiosk-3", model="pairs", version=1, state="idle"))
    assert ids(api) == [f"kiosk-{n}" for n in range(5)]
    assert ids(api, limit=2) == [f"kiosk-{n}" for n in range(5)]
    assert ids(api, site="berlin") == ["kiosk-1", "kiosk-3"]
    assert ids(api, site="上海", label="ring:r2") == ["kiosk-2"]
    assert ids(api, label=["ring:r2", "ring:r3"]) == []
    assert ids(api, model="pairs", version=1) == ["kiosk-3"]
    assert ids(api, **{"class": "edge-b"}) == []
    assert ids(api, state="active") == []
    assert ids(api, text="-4") == ["kiosk-4"]


@pytest.mark.parametrize(
    "params", [{"limit": 0}, {"limit": 201}, {"cursor": "!"}, {"label": "ring"}, {"state": "lost"}, {"health": "ill"}]
)
def test_a_query_that_does_not_fit_is_invalid(api: Api, params: dict[str, str]) -> None:
    answer = api.client.get(URL, params=params)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


def test_a_change_needs_the_etag_that_was_read(api: Api) -> None:
    api.client.post(URL, json=body(labels={"ring": "early", "floor": "2"}))
    url, change = f"{URL}/kiosk-1", {"site": "hamburg", "labels": {"ring": "late", "floor": None}}
    assert api.client.patch(url, json=change).status_code == 428
    assert api.client.patch(url, json=change, headers={"If-Match": '"7"'}).status_code == 412
    tag = api.client.get(url).headers["etag"]
    changed = api.client.patch(url, json=change, headers={"If-Match": tag})
    assert changed.status_code == 200
    assert (changed.json()["site"], changed.json()["labels"]) == ("hamburg", {"ring": "late"})
    assert changed.headers["etag"] != tag
    assert api.client.patch(url, json=change, headers={"If-Match": tag}).status_code == 412
    assert api.client.patch(url, json=change, headers={"If-Match": "*"}).status_code == 200


def test_a_revoked_device_is_on_the_revocation_list(api: Api) -> None:
    api.enrol("kiosk-1")
    before = api.context.authority.crl_path.read_bytes()
    url = f"{URL}/kiosk-1"
    assert api.client.post(f"{url}/revoke").status_code == 428
    tag = api.client.get(url).headers["etag"]
    answer = api.client.post(f"{url}/revoke", json={"reason": "stolen"}, headers={"If-Match": tag})
    assert answer.json()["state"] == "revoked"
    assert api.context.authority.crl_path.read_bytes() != before
    assert (
        api.client.post(f"{url}/revoke", headers={"If-Match": tag}).status_code == 200
    )  # done already: no fresh tag needed
    assert api.client.post(f"{url}/token").json()["code"] == "conflict"
    with read(api.context.engine) as session:
        assert [e.kind for e in session.exec(select(DeviceEvent))] == ["enrolled", "revoked"]
        assert [a.action for a in session.exec(select(AuditEvent))][-1] == "device.revoke"


def test_every_change_moves_the_pages_revision(api: Api) -> None:
    def revision() -> int:
        with read(api.context.engine) as session:
            return session.get_one(Revision, 1).value

    before = revision()
    api.client.post(URL, json=body())
    assert revision() > before


def test_a_new_token_ends_the_one_before(api: Api) -> None:
    from tests.support.api_server import csr

    first = api.client.post(URL, json=body()).json()["token"]["token"]
    second = api.client.post(f"{URL}/kiosk-1/token").json()["token"]
    for token, status in ((first, 403), (second, 200)):
        assert api.client.post("/api/v1/enrol", json={"token": token, "csr": csr("kiosk-1")}).status_code == status


def test_why_events_reports_and_series_of_a_new_device(api: Api) -> None:
    api.enrol("kiosk-1")
    why = api.client.get(f"{URL}/kiosk-1/why").json()
    assert [step["sentence"] for step in why["steps"]] == ["No version was ever assigned to this device."]
    events = api.client.get(f"{URL}/kiosk-1/events").json()["items"]
    assert [(event["kind"], event["at"]) for event in events] == [("enrolled", NOW.isoformat().replace("+00:00", "Z"))]
    assert api.client.get(f"{URL}/kiosk-1/reports").json() == {"items": []}
    series = api.client.get(f"{URL}/kiosk-1/series", params={"range": "24h"}).json()
    assert (series["device"], series["t"], series["swaps"]) == ("kiosk-1", [], [])
    assert api.client.get(f"{URL}/kiosk-1/series", params={"range": "2h"}).status_code == 422


@pytest.mark.parametrize("path", ["", "/why", "/events", "/reports", "/series"])
def test_an_unknown_device_is_not_found(api: Api, path: str) -> None:
    assert api.client.get(f"{URL}/kiosk-9{path}").json()["code"] == "not_found"


def test_a_viewer_sees_devices_but_makes_none(api: Api) -> None:
    headers = api.as_role(Role.VIEWER)
    assert api.client.get(URL, headers=headers).status_code == 200
    assert api.client.post(URL, json=body(), headers=headers).status_code == 403


def ids(api: Api, **params: Any) -> list[str]:
    found: list[str] = []
    cursor = None
    while True:
        page = api.client.get(URL, params={**params, **({"cursor": cursor} if cursor else {})}).json()
        found += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            return found
