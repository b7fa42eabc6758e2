"""A seeded dashboard, made once; tests that change something get a copy of their own."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.support.web_server import Dashboard, make_directory, open_dashboard
from wavegate_server.adapters import clock


@pytest.fixture(scope="session")
def fleet_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("fleet") / "data"
    make_directory(directory, clock.now(), minutes=40)
    return directory


@pytest.fixture(scope="session")
def shared(fleet_directory: Path) -> Iterator[Dashboard]:
    """For reading only."""
    with open_dashboard(fleet_directory) as dashboard:
        yield dashboard


@pytest.fixture
def dashboard(fleet_directory: Path, tmp_path: Path) -> Iterator[Dashboard]:
    """A copy that the test may change."""
    shutil.copytree(fleet_directory, tmp_path / "data")
    with open_dashboard(tmp_path / "data") as copy:
        yield copy


@pytest.fixture
def client(shared: Dashboard) -> Iterator[TestClient]:
    """An administrator's browser on the shared dashboard."""
    with shared.client() as signed_in:
        yield signed_in
