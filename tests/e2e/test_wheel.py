"""The server as `pip install ./server` gives it: the wheel in an environment of its own, its pages in a real browser."""

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from tests.support.browser import CHROMIUM, Visit, open_browser, settled
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("/fleet", "/models", "/rollouts", "/devices/locker-1")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH: apt-get install chromium"),
    pytest.mark.skipif(shutil.which("npm") is None, reason="no npm on the PATH: apt-get install npm"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that holds the wheel, built from the tracked files alone, and nothing of the checkout."""
    work = tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "shared", "server"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    for name in filter(None, tracked.split("\0")):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, work / name)
    subprocess.run([sys.executable, "-m", "venv", work / "venv"], check=True)
    pip = [str(work / "venv" / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "--constraint", str(ROOT / "constraints.txt"), str(work / "server")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return work / "venv"


@contextmanager
def served(environment: Path, directory: Path) -> Iterator[tuple[str, str, Path]]:
    """`wavegate serve` in an empty directory: its URL, the link that signs in, and its log."""
    directory.mkdir(parents=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WAVEGATE_", "PYTHON"))}
    log, ready = directory.parent / f"{directory.name}.log", directory / "wavegate-data" / "serve.json"
    settings = {"WAVEGATE_DATA_DIR": str(ready.parent), "WAVEGATE_BROKER": "embedded"}
    command = [str(environment / "bin" / "wavegate"), "serve", "--port", "0", "--broker-port", "0"]
    with (
        log.open("w") as output,
        subprocess.Popen(command, cwd=directory, env={**kept, **settings}, stdout=output, stderr=output) as server,
    ):
        try:
            wait_until(lambda: ready.is_file() or server.poll() is not None, "the server is up", timeout_s=60)
            assert server.poll() is None, log.read_text()
            address = json.loads(ready.read_text())
            yield address["url"], address["login_url"], log
        finally:
            server.terminate()
            server.wait(20)


def client(url: str, data: Path) -> httpx.Client:
    """The API with the administrator's token."""
    token = (data / "admin.token").read_text().strip()
    trusted = ssl.create_default_context(cafile=data / "ca" / "ca.pem")
    return httpx.Client(
        base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {token}"}, verify=trusted, trust_env=False
    )


def test_every_page_has_its_libraries_and_updates_by_itself(environment: Path, tmp_path: Path) -> None:
    with (
        served(environment, tmp_path / "server") as (url, login_url, log),
        client(url, tmp_path / "server" / "wavegate-data") as api,
        open_browser() as chromium,
    ):
        visit = Visit(chromium, None, url)
        page = visit.open(login_url.removeprefix(url))
        page.goto(f"{url}/fleet")
        settled(page)
        page.evaluate("window.sameDocument = true")
        place = {"id": "locker-1", "class": "pi4", "site": "hamburg"}
        api.post("/devices", json=place).raise_for_status()
        expect(page.locator("#d-locker-1")).to_be_visible(timeout=15_000)
        assert page.evaluate("window.sameDocument")
        for path in PAGES:
            page.goto(url + path)
            expect(page.locator("#live-state")).to_have_class(re.compile("on"))
        assert page.evaluate("typeof uPlot") == "function"
        visit.close()
        assert (visit.refused, visit.errors, visit.foreign) == ([], [], [])
    assert "vendor_missing" not in log.read_text()


def test_a_server_without_them_says_at_its_start_what_to_do(environment: Path, tmp_path: Path) -> None:
    (library,) = environment.glob("lib/python3*/site-packages/wavegate_server/web/static/vendor/htmx.min.js")
    text = library.read_bytes()
    library.unlink()
    try:
        with served(environment, tmp_path / "server") as (_, _, log):
            pass
        (line,) = [line for line in log.read_text().splitlines() if "vendor_missing" in line]
        assert "WARNING" in line
        assert "htmx.min.js" in line
        assert "pip install ./server" in line
    finally:
        library.write_bytes(text)
