"""Every error is a problem with a stable type, whoever raised it."""

import logging
from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient

from tests.support.api_server import Api
from wavegate_server.api.problems import MEDIA_TYPE, status_of
from wavegate_shared.errors import CODES, DeviceError, TransferError, TrustError, WavegateError


def test_every_code_has_a_status() -> None:
    assert {code: status_of(code) for code in CODES if not 400 <= status_of(code) < 600} == {}


def test_an_unknown_name_is_a_problem_with_code_and_advice(api: Api) -> None:
    answer = api.client.get("/api/v1/devices/kiosk-9")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == MEDIA_TYPE
    problem = answer.json()
    assert problem["type"] == "urn:wavegate:error:not_found"
    assert problem["detail"] == "no device 'kiosk-9'"
    assert problem["action"]


def test_a_body_that_does_not_fit_names_every_field(api: Api) -> None:
    answer = api.client.post("/api/v1/devices", json={"id": "a/b", "class": "edge-a"})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert {tuple(error["loc"]) for error in answer.json()["errors"]} == {("body", "id"), ("body", "site")}


@pytest.mark.parametrize("body", ["{", "[1", '{"id": NaN}', "\x00"])
def test_broken_json_is_a_problem(api: Api, body: str) -> None:
    answer = api.client.post("/api/v1/devices", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid"


def test_a_broken_form_is_a_problem(api: Api) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = api.client.post("/api/v1/models/import", content=b"--y\r\nnonsense", headers=headers)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == MEDIA_TYPE


def test_an_unknown_address_is_a_problem(api: Api) -> None:
    answer = api.client.get("/api/v1/nowhere")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert answer.json()["detail"] == "nothing at /api/v1/nowhere"


def test_a_wrong_method_names_all_methods_of_the_address(api: Api) -> None:
    answer = api.client.delete("/api/v1/devices")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, POST"
    assert api.client.post("/api/v1/devices/kiosk-1").headers["allow"] == "GET, PATCH"


def test_a_body_over_the_limit_is_refused_before_it_is_read(api: Api) -> None:
    answer = api.client.post("/api/v1/devices", content=b"x" * (2 << 20), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.headers["content-type"]) == (413, MEDIA_TYPE)
    assert answer.json()["code"] == "too_large"


@pytest.mark.parametrize(
    ("error", "status"),
    [(TrustError("manifest_invalid"), 422), (TransferError("not_connected"), 503), (DeviceError("disk_full"), 507)],
)
def test_errors_of_every_kind_keep_their_code(api: Api, error: WavegateError, status: int) -> None:
    def boom() -> None:
        raise error

    add(api, boom)

    answer = api.client.get("/boom")
    assert (answer.status_code, answer.json()["code"]) == (status, error.code)


def test_what_nobody_caught_is_logged_counted_and_answered(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    def boom() -> None:
        raise ZeroDivisionError("a secret detail")

    add(api, boom)

    with caplog.at_level(logging.ERROR):
        answer = api.client.get("/boom")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.text
    assert "request_failed method=GET path=/boom" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert api.client.get("/api/v1/health").json()["failed_requests"] == 1


def test_an_answer_that_had_begun_is_cut_off(api: Api) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"first"
        raise ZeroDivisionError

    def boom() -> StreamingResponse:
        return StreamingResponse(pieces())

    add(api, boom)

    with pytest.raises(ZeroDivisionError), TestClient(api.client.app) as client:
        client.get("/boom")


def add(api: Api, endpoint: Callable[[], object]) -> None:
    """Put an endpoint of the test's own at /boom."""
    assert isinstance(api.client.app, FastAPI)
    api.client.app.get("/boom", response_model=None)(endpoint)
