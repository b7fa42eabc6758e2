"""Fixtures of the server's tests: a seeded data directory, made once, and the API over a copy of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.api_server import Api, open_api, seed_directory
from tests.support.cli import Cli, Listener, served
from wavegate_server.config import Settings
from wavegate_server.services.first_start import open_trust


@pytest.fixture(scope="session")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("seed") / "data"
    seed_directory(directory)
    return directory


@pytest.fixture
def api(seed: Path, tmp_path: Path) -> Iterator[Api]:
    with open_api(seed, tmp_path / "data") as opened:
        yield opened


@pytest.fixture(scope="session")
def listener(seed: Path) -> Iterator[Listener]:
    """HTTPS with the authority of the seed, which all its copies share."""
    front = Listener()
    with served(front, open_trust(Settings(data_dir=seed)).authority) as front.url:
        yield front


@pytest.fixture
def cli(
    api: Api, listener: Listener, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Cli]:
    """The command with the environment of an operator on the server's machine."""
    for name in ("WAVEGATE_TOKEN", "WAVEGATE_CA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WAVEGATE_DATA_DIR", str(api.context.settings.data_dir))
    monkeypatch.setenv("WAVEGATE_SERVER", listener.url)
    listener.app = api.client.app
    yield Cli(capsys, listener.url)
    listener.app = None
