"""Pages live with the rows of every release: each page and part, in both languages, from the oldest database there is."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from tests.support.oldest_db import DEVICES, JOBS, MODELS, ROLLOUTS, make_oldest
from tests.support.web_server import Dashboard, open_dashboard
from wavegate_server.adapters import clock
from wavegate_server.migrations import current_revision

PART = {"HX-Request": "true", "HX-Request-Type": "partial"}
PAGES: dict[str, list[dict[str, str]]] = {
    "/": [{}],
    "/login": [{}],
    "/fleet": [{}],
    "/models": [{}],
    "/models/{name}": [{"name": name} for name in MODELS],
    "/devices/{device_id}": [{"device_id": name} for name in DEVICES],
    "/series/device/{device_id}": [{"device_id": name} for name in DEVICES],
    "/rollouts": [{}],
    "/rollouts/{rollout_id}": [{"rollout_id": name} for name in ROLLOUTS],
}
PATHS: list[str] = [path.format(**values) for path, each in PAGES.items() for values in each]
WITHOUT_ROWS = {"/preferences", "/events", "/static/{name:path}"}
API = [
    *(f"/models/{name}" for name in MODELS),
    *(f"/devices/{name}{part}" for name in DEVICES for part in ("", "/events", "/reports", "/why")),
    *(f"/rollouts/{name}{part}" for name in ROLLOUTS for part in ("", "/why")),
    *(f"/compress-jobs/{number}" for number in range(1, JOBS + 1)),
    *("/devices", "/models", "/rollouts", "/compress-jobs", "/bench-rounds"),
]


@pytest.fixture(scope="module", params=[{}, None], ids=["empty", "null"])
def old(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """A database of the first release, upgraded; what it did not know is an empty object, or null."""
    directory = tmp_path_factory.mktemp("oldest") / "data"
    absent: dict[str, Any] | None = request.param
    make_oldest(directory, clock.now(), absent=absent)
    with open_dashboard(directory) as dashboard:
        yield dashboard


@pytest.fixture(scope="module")
def reader(old: Dashboard) -> Iterator[TestClient]:
    with old.client() as client:
        yield client


def test_the_database_went_through_every_revision(old: Dashboard) -> None:
    versions = Path(__file__).parents[3] / "server/wavegate_server/migrations/versions"
    newest = max(path.name[:4] for path in versions.glob("0*.py"))
    assert current_revision(old.context.engine) == newest


def test_every_page_is_among_them(old: Dashboard) -> None:
    routes = [route for route in old.pages.routes if isinstance(route, APIRoute) and "GET" in (route.methods or ())]
    assert {route.path for route in routes} - WITHOUT_ROWS == set(PAGES)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("path", PATHS)
def test_a_page_lives_without_what_its_release_did_not_know(reader: TestClient, path: str, language: str) -> None:
    page = reader.get(path, headers={"Accept-Language": language})
    assert page.status_code in (200, 303), page.text
    part = reader.get(path, headers={"Accept-Language": language, **PART})
    assert part.status_code in (200, 303), part.text
    for text in (page.text, part.text):
        assert re.findall(r"\bNone\b|\bundefined\b|\bnan\b", text) == []


@pytest.mark.parametrize("path", API)
def test_the_api_answers_too(old: Dashboard, path: str) -> None:
    with old.client() as client:
        answer = client.get(f"/api/v1{path}")
        assert answer.status_code == 200, answer.text


def test_what_is_known_is_still_shown(reader: TestClient) -> None:
    page = reader.get("/models/address-match").text
    assert page.count('<article class="card release"') == 3
    assert page.count('<article class="card job"') == JOBS
    written = reader.get("/rollouts/r-written", headers={"Accept-Language": "zh"}).text
    assert '<p class="sentence" lang="en">wrong on 5 of 5 devices' in written
    assert '<strong lang="en">wrong on 5 of 5 devices' in written
