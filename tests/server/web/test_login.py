"""Signing in: a token or a one-time link becomes a cookie, and nothing else does."""

import pytest

from tests.support.web_server import Dashboard
from wavegate_server.adapters.store.tokens import SESSION_COOKIE
from wavegate_server.web.login import local_path


def test_a_token_becomes_a_session(dashboard: Dashboard) -> None:
    with dashboard.client(None) as client:
        answer = client.post("/login", data={"token": dashboard.token(), "next": "/rollouts"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/rollouts")
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith(SESSION_COOKIE)
        assert all(word in cookie for word in ("HttpOnly", "Secure", "SameSite=lax", "Path=/"))
        assert client.get("/rollouts").status_code == 200


def test_a_wrong_token_is_told_so(dashboard: Dashboard) -> None:
    with dashboard.client(None) as client:
        answer = client.post("/login", data={"token": "wgt_wrong", "next": "/rollouts"})
    assert answer.status_code == 401
    assert 'aria-describedby="token-error"' in answer.text
    assert '<p class="error" id="token-error" role="alert">' in answer.text
    assert '<input type="hidden" name="next" value="/rollouts">' in answer.text
    assert "wgt_wrong" not in answer.text
    assert "set-cookie" not in answer.headers


def test_a_link_signs_in_once(dashboard: Dashboard) -> None:
    key = dashboard.login_key()
    with dashboard.client(None) as client:
        assert client.get(f"/login?key={key}").headers["location"] == "/fleet"
    with dashboard.client(None) as other:
        assert other.get(f"/login?key={key}").status_code == 401


def test_another_sites_form_is_refused(dashboard: Dashboard) -> None:
    with dashboard.client(None) as client:
        answer = client.post("/login", data={"token": dashboard.token()}, headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403


def test_signing_out_ends_the_session_on_the_server(dashboard: Dashboard) -> None:
    with dashboard.client() as client:
        cookie = client.cookies[SESSION_COOKIE]
        assert client.post("/logout").headers["location"] == "/login"
        client.cookies.set(SESSION_COOKIE, cookie)
        assert client.get("/fleet").headers["location"] == "/login?next=/fleet"


@pytest.mark.parametrize("path", ["/fleet", "/devices/locker-hz-01", "/models", "/rollouts"])
def test_pages_need_a_session(shared: Dashboard, path: str) -> None:
    with shared.client(None) as client:
        assert client.get(path).headers["location"] == f"/login?next={path}"
        assert client.get("/series/device/locker-hz-01").status_code == 303
        assert client.get("/events").status_code == 401


def test_language_and_theme_are_kept_and_lead_back(shared: Dashboard) -> None:
    with shared.client() as client:
        assert client.get("/preferences?language=zh&next=/models").headers["location"] == "/models"
        client.get("/preferences?theme=dark")
        page = client.get("/models", headers={"Accept-Language": "en"}).text
        assert '<html lang="zh" data-theme="dark">' in page


@pytest.mark.parametrize(
    "path", ["https://evil.example", "//evil.example", "/\\evil.example", "", "fleet", "/a\r\nb", None]
)
def test_a_link_never_leads_elsewhere(path: str | None) -> None:
    assert local_path(path) == "/fleet"
    assert local_path("/rollouts?a=b") == "/rollouts?a=b"
