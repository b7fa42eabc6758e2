"""Pages: limits are kept, foreign cursors refused."""

import base64

import pytest

from tests.support.api_server import Api

LISTS = ["/devices", "/devices/kiosk-1/events", "/models", "/models/pairs/versions", "/rollouts", "/tokens"]
FOREIGN = ["!", "%00", base64.urlsafe_b64encode(b"\xff\xfe").decode(), "x" * 501]


@pytest.mark.parametrize("path", LISTS)
def test_every_list_has_items_and_a_cursor_and_keeps_the_limits(api: Api, path: str) -> None:
    api.enrol("kiosk-1")
    page = api.client.get(f"/api/v1{path}").json()
    assert set(page) == {"items", "next_cursor"}
    for limit in ("0", "201", "x"):
        assert api.client.get(f"/api/v1{path}", params={"limit": limit}).status_code == 422


@pytest.mark.parametrize("path", LISTS)
def test_a_foreign_cursor_is_invalid_or_leads_to_an_empty_page_but_never_fails(api: Api, path: str) -> None:
    api.enrol("kiosk-1")
    numbers = [base64.urlsafe_b64encode(text).decode() for text in (b"9" * 400, b"-1", "٣".encode(), b"2026|x", b"x|x")]
    for cursor in FOREIGN + numbers:
        answer = api.client.get(f"/api/v1{path}", params={"cursor": cursor})
        assert answer.status_code in (200, 422), (cursor, answer.text)
    assert api.client.get(f"/api/v1{path}", params={"cursor": "!"}).json()["code"] == "invalid"
