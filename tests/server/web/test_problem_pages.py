"""Errors outside all pages: a browser gets a page in its language, everything else a problem document."""

import logging

import pytest
from fastapi.testclient import TestClient

from tests.support.web_server import Dashboard
from wavegate_server.api.problems import MEDIA_TYPE
from wavegate_server.web import pages

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.mark.parametrize("path", ["/audit", "/devices/", "/static/nope.css", "/models/address-match/nope"])
@pytest.mark.parametrize(("language", "heading"), [("en", "There is no such thing"), ("zh", "未找到")])
def test_an_unknown_address_is_a_page_in_the_readers_language(
    client: TestClient, path: str, language: str, heading: str
) -> None:
    answer = client.get(path, headers={**BROWSER, "Accept-Language": language})
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert f'<html lang="{language}"' in answer.text
    assert f"<title>{heading} · Wavegate</title>" in answer.text
    assert f"<h1>{heading}</h1>" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert 'class="sections"' in answer.text  # whoever is signed in can go on from here


def test_nobody_has_to_sign_in_to_read_that_there_is_no_page(shared: Dashboard) -> None:
    with shared.client(None) as client:
        answer = client.get("/nope", headers=BROWSER)
    assert answer.status_code == 404
    assert 'class="sections"' not in answer.text
    assert "There is no page at /nope." in answer.text


@pytest.mark.parametrize(
    ("path", "accept"), [("/api/v1/nope", BROWSER["Accept"]), ("/nope", "*/*"), ("/nope", "application/json")]
)
def test_the_api_and_other_programs_get_a_document(client: TestClient, path: str, accept: str) -> None:
    answer = client.get(path, headers={"Accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (404, MEDIA_TYPE)
    assert answer.json()["detail"] == f"nothing at {path}"


def test_a_wrong_method_is_a_page_that_names_the_right_ones(client: TestClient) -> None:
    answer = client.get("/models/address-match/compress", headers=BROWSER)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert "<h1>Not this way</h1>" in answer.text


def test_a_number_that_is_none_is_a_page(client: TestClient) -> None:
    answer = client.post("/compress-jobs/one/cancel")
    assert answer.status_code == 422
    assert "<h1>Not understood</h1>" in answer.text


def test_a_failure_is_a_page_and_is_logged(
    shared: Dashboard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("a fault of the test")

    monkeypatch.setattr(pages, "fleet_summary", fails)
    with shared.client() as client, caplog.at_level(logging.CRITICAL, "wavegate_server.api.problems"):
        answer = client.get("/fleet", headers=BROWSER)
        assert answer.status_code == 500
        assert "The server failed" in answer.text
        assert "a fault of the test" not in answer.text
        assert client.get("/fleet", headers={"Accept": "*/*"}).headers["content-type"] == MEDIA_TYPE


def test_a_page_of_an_error_that_fails_does_not_hide_it(dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("a fault of the test")

    monkeypatch.setattr(pages, "fleet_summary", fails)
    dashboard.app.state.problem_page = fails
    with dashboard.client() as client:
        answer = client.get("/fleet", headers=BROWSER)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
