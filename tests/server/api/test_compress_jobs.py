"""Compression jobs over the API: started, listed, followed, cancelled, and refused where that is right. Nothing runs them here."""

from pathlib import Path
from typing import Any

import pytest

from tests.server.api.test_models import zipped
from tests.support.api_server import Api
from tests.support.bundles import write_pair_bundle
from wavegate_server.adapters.database.connection import write
from wavegate_server.adapters.database.tables import Version
from wavegate_server.adapters.store.compress_jobs import JobState, Outcome, Step, claim, finish, note
from wavegate_server.adapters.store.tokens import Role

URL = "/api/v1/compress-jobs"


def start(api: Api, *, key: str | None = None, **fields: Any) -> Any:
    headers = {"Idempotency-Key": key} if key else {}
    return api.client.post(URL, json={"model": "pairs", "version": 1, **fields}, headers=headers)


def test_a_job_is_queued_with_a_default_budget(api: Api) -> None:
    answer = start(api)
    assert answer.status_code == 201, answer.text
    job = answer.json()
    assert answer.headers["location"] == f"{URL}/{job['id']}"
    assert (job["state"], job["budget"], job["class"], job["time_s"]) == ("queued", "size=-70%,drop=2pt", "", 600)
    assert (job["created_by"], job["result"], job["progress"]) == ("admin", {}, {})
    assert api.client.get(f"{URL}/{job['id']}").json() == job


def test_the_same_request_again_starts_no_second_job(api: Api) -> None:
    first, again = start(api, key="k"), start(api, key="k")
    assert first.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert start(api, key="k", budget="size=-10%").json()["code"] == "invalid"
    assert len(api.client.get(URL).json()["items"]) == 1


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"version": 9}, 404, "not_found"),
        ({"model": "none"}, 404, "not_found"),
        ({"budget": "smaller please"}, 422, "invalid"),
        ({"budget": ","}, 422, "invalid"),
        ({"budget": "size=+5%"}, 422, "invalid"),
        ({"time_s": 1}, 422, "invalid"),
        ({"time_s": 1e9}, 422, "invalid"),
        ({"class": "a b/c"}, 422, "invalid"),
        ({"metric": "mine.py:f"}, 422, "invalid"),
    ],
)
def test_what_cannot_be_run_is_refused(api: Api, fields: dict[str, Any], status: int, code: str) -> None:
    answer = start(api, **fields)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert api.client.get(URL).json()["items"] == []


def test_a_version_whose_bundle_was_not_kept_says_what_to_do(api: Api) -> None:
    with write(api.context.engine) as session:
        row = session.get_one(Version, 1)
        row.info = {name: value for name, value in row.info.items() if name != "files"}
        session.add(row)
    answer = start(api)
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert "import it again" in answer.json()["detail"]


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
def test_only_who_may_change_models_may_start_or_cancel(api: Api, role: Role) -> None:
    job = start(api).json()["id"]
    headers = api.as_role(role)
    body = {"model": "pairs", "version": 1}
    assert api.client.post(URL, json=body, headers=headers).json()["code"] == "forbidden"
    assert api.client.post(f"{URL}/{job}/cancel", headers={**headers, "If-Match": "*"}).json()["code"] == "forbidden"
    assert api.client.get(f"{URL}/{job}", headers=headers).json()["state"] == "queued"
    assert start(api).status_code == 201
    assert api.client.post(URL, json=body, headers=api.as_role(Role.PUBLISHER)).status_code == 201


def test_an_uploaded_bundle_is_imported_and_compressed_as_that_version(api: Api, tmp_path: Path) -> None:
    archive = zipped(write_pair_bundle(tmp_path / "b", floor=0.7))
    answer = api.client.post(
        f"{URL}/upload", files={"bundle": ("b.zip", archive)}, data={"budget": "size=-10%", "class": "pi4"}
    )
    assert answer.status_code == 201, answer.text
    job = answer.json()
    assert (job["version"], job["budget"], job["class"]) == (3, "size=-10%", "pi4")
    archive.seek(0)
    again = api.client.post(f"{URL}/upload", files={"bundle": ("b.zip", archive)}, data={"budget": "nonsense"})
    assert (again.status_code, again.json()["code"]) == (422, "invalid")
    assert api.client.get("/api/v1/models/pairs").json()["versions"] == 3


def test_a_queued_job_is_cancelled_at_once_and_again_is_the_same(api: Api) -> None:
    made = start(api)
    url = f"{URL}/{made.json()['id']}/cancel"
    assert api.client.post(url).status_code == 428
    assert api.client.post(url, headers={"If-Match": '"7"'}).status_code == 412
    for tag in (made.headers["etag"], "*"):
        answer = api.client.post(url, headers={"If-Match": tag})
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")


def test_a_running_job_keeps_its_tag_while_it_tells_its_progress(api: Api) -> None:
    number, now = start(api).json()["id"], api.clock()
    with write(api.context.engine) as session:
        claim(session, "w", now)
    tag = api.client.get(f"{URL}/{number}").headers["etag"]
    with write(api.context.engine) as session:
        for detail in ("", "half"):
            note(session, number, Step("training", "small", "", detail, 0.2), now=now, bump=True)
        note(session, number, Step("quantising", "small", "", "", 0.4), now=now, bump=True)
    shown = api.client.get(f"{URL}/{number}")
    assert (shown.headers["etag"], shown.json()["progress"]["stage"]) == (tag, "quantising")
    first = api.client.get(f"{URL}/{number}/events", params={"limit": 1}).json()
    rest = api.client.get(f"{URL}/{number}/events", params={"cursor": first["next_cursor"]}).json()
    assert [event["stage"] for event in first["items"] + rest["items"]] == ["training", "quantising"]
    later = api.client.get(f"{URL}/{number}/events", params={"after": first["items"][0]["id"]}).json()
    assert later == rest
    asked = api.client.post(f"{URL}/{number}/cancel", headers={"If-Match": tag})
    assert (asked.json()["state"], asked.json()["cancel_asked"]) == ("running", True)


def test_a_finished_job_is_not_cancelled(api: Api) -> None:
    number = start(api).json()["id"]
    with write(api.context.engine) as session:
        finish(session, number, Outcome(JobState.NOT_MET, "no"), api.clock())
        finish(session, number, Outcome(JobState.MET, "never mind"), api.clock())
    answer = api.client.post(f"{URL}/{number}/cancel", headers={"If-Match": "*"})
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert api.client.get(f"{URL}/{number}").json()["reason"] == "no"


def test_jobs_are_listed_newest_first_and_filtered(api: Api) -> None:
    numbers = [start(api).json()["id"] for _ in range(3)]
    api.client.post(f"{URL}/{numbers[0]}/cancel", headers={"If-Match": "*"})
    first = api.client.get(URL, params={"limit": 2}).json()
    rest = api.client.get(URL, params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [job["id"] for job in first["items"] + rest["items"]] == numbers[::-1]
    queued = api.client.get(URL, params={"state": "queued", "model": "pairs"}).json()["items"]
    assert [job["id"] for job in queued] == numbers[:0:-1]
    assert api.client.get(URL, params={"model": "other"}).json()["items"] == []
    assert api.client.get(URL, params={"cursor": "!"}).status_code == 422


def test_a_job_whose_worker_is_gone_goes_to_another_when_its_lease_is_over(api: Api) -> None:
    number = start(api).json()["id"]
    with write(api.context.engine) as session:
        assert claim(session, "one", api.clock()) is not None
        assert claim(session, "two", api.clock()) is None
    api.clock.forward(seconds=31)
    with write(api.context.engine) as session:
        taken = claim(session, "two", api.clock())
    assert taken is not None
    assert (taken.id, taken.attempt, taken.worker) == (number, 2, "two")
    for _ in range(2):
        api.clock.forward(seconds=31)
        with write(api.context.engine) as session:
            taken = claim(session, "three", api.clock())
    assert taken is not None
    assert (taken.state, taken.code) == ("failed", "internal")


@pytest.mark.parametrize("path", ["/9", "/9/events"])
def test_a_job_that_is_not_there_is_not_found(api: Api, path: str) -> None:
    assert api.client.get(URL + path).json()["code"] == "not_found"


RESULT: dict[str, Any] = {
    "verdicts": [{"item": "size=-10%", "met": True, "value": -0.7, "low": None, "high": None}],
    "candidates": [{"recipe": "x", "size_bytes": 5, "p50_ms": 1.0, "metric": 1.0, "drop_pt": 0.0, "offered": True}],
    "chosen": "x",
    "for": None,
}


def send(api: Api, *, headers: dict[str, str] | None = None, result: object = None, **fields: Any) -> Any:
    body = {"model": "pairs", "version": 1, "result_version": 2, "budget": "size=-10%", "time_s": 60, "result": RESULT}
    return api.client.post(f"{URL}/record", json={**body, **fields, "result": result or RESULT}, headers=headers)


def test_a_job_that_ran_elsewhere_is_kept_with_its_candidates(api: Api) -> None:
    answer = send(api)
    assert answer.status_code == 201, answer.text
    job = api.client.get(answer.headers["location"]).json()
    assert (job["state"], job["result_version"], job["created_by"]) == ("met", 2, "admin")
    assert job["result"]["candidates"][0]["recipe"] == "x"
    assert send(api, result={**RESULT, "chosen": None}, result_version=None).json()["state"] == "not_met"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"version": 9}, "not_found"),
        ({"result_version": 9}, "not_found"),
        ({"budget": "x"}, "invalid"),
        ({"result": {"chosen": "x"}}, "invalid"),
        ({"result": {**RESULT, "candidates": [{"recipe": "x", "size_bytes": "big", "offered": True}]}}, "invalid"),
        ({"result": {**RESULT, "candidates": [{"recipe": "x", "size_bytes": -1, "offered": True}]}}, "invalid"),
    ],
)
def test_a_record_that_no_page_could_show_is_refused(api: Api, fields: dict[str, Any], code: str) -> None:
    assert send(api, **fields).json()["code"] == code
    assert send(api, headers=api.as_role(Role.VIEWER)).json()["code"] == "forbidden"
    assert api.client.get(URL).json()["items"] == []
