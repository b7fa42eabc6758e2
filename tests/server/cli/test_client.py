"""Finding the server, trusting it, and saying what is wrong when that fails."""

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.api_server import Api
from tests.support.cli import Cli
from wavegate_server.adapters.clock import now
from wavegate_server.adapters.store.tokens import Role
from wavegate_server.adapters.trust.authority import Authority
from wavegate_server.client import at
from wavegate_server.config import Settings
from wavegate_server.services.first_start import initialise


def test_what_an_operator_typed_stays_one_part_of_the_path(cli: Cli) -> None:
    assert at("devices", "a/../b?x#y", "why") == "/devices/a%2F..%2Fb%3Fx%23y/why"
    assert "(not_found)" in cli("device", "show", "../health", code=1).err


def test_pages_are_followed_to_the_end(cli: Cli, api: Api) -> None:
    api.add_active(**{f"kiosk_{number:03}": {} for number in range(401)})
    assert len(cli("device", "list", "--json").json["items"]) == 401


def test_no_server_is_one_line_what_and_one_what_to_do(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("WAVEGATE_SERVER", f"https://localhost:{port}")
    first, second = cli("device", "list", code=1).err.splitlines()
    assert first.startswith(f"error: cannot reach https://localhost:{port}")
    assert "wavegate serve" in second


def test_a_running_server_says_where_it_is(cli: Cli, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """`wavegate serve` wrote its address into the data directory; nobody has to name it again."""
    monkeypatch.delenv("WAVEGATE_SERVER")
    api.context.settings.ready_file.write_text(json.dumps({"pid": 1, "url": cli.url}))
    assert cli("device", "list", "--json").json == {"items": []}
    monkeypatch.setenv("WAVEGATE_SERVER", "https://localhost:1")
    assert "cannot reach https://localhost:1:" in cli("device", "list", code=1).err


def test_an_address_that_is_out_of_date_is_named_with_its_file(
    cli: Cli, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WAVEGATE_SERVER")
    ready = api.context.settings.ready_file
    ready.write_text(json.dumps({"pid": 1, "url": "https://localhost:1"}))
    assert f"cannot reach https://localhost:1 (the address in {ready})" in cli("device", "list", code=1).err
    ready.write_text("half a fi")
    assert "cannot reach https://localhost:8443:" in cli("device", "list", code=1).err


@pytest.mark.parametrize("given", ["localhost", "http://localhost:8443", "localhost:9000"])
def test_an_address_without_https_says_what_to_write(cli: Cli, given: str) -> None:
    err = cli("--server", given, "device", "list", code=2).err
    assert f"write https://{given.removeprefix('http://')}" in err


def test_a_server_of_another_authority_is_not_trusted(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    initialise(Settings(data_dir=tmp_path / "other"), now())
    other = Authority(tmp_path / "other" / "ca")
    assert other.ready
    monkeypatch.setenv("WAVEGATE_CA", str(tmp_path / "other" / "ca" / "ca.pem"))
    assert "not signed by the authority" in cli("device", "list", code=1).err


def test_an_authority_file_that_is_none_is_said(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    for name in ("ca.pem", "missing.pem"):
        assert "no certificate authority in" in cli("--ca", tmp_path / name, "device", "list", code=1).err


def test_options_stand_above_the_environment(
    cli: Cli, api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WAVEGATE_SERVER", "https://localhost:1")
    monkeypatch.setenv("WAVEGATE_DATA_DIR", str(tmp_path))
    token = tmp_path / "token"
    token.write_text(api.token(Role.VIEWER) + "\n")
    ca = api.context.settings.ca_dir / "ca.pem"
    options = ("--server", cli.url, "--ca", ca, "--token-file", token)
    assert cli(*options, "device", "list", "--json").json == {"items": []}


def test_a_missing_token_file_is_said(cli: Cli, tmp_path: Path) -> None:
    err = cli("--token-file", tmp_path / "none", "device", "list", code=1).err
    assert err.startswith(f"error: no token: {tmp_path / 'none'}: No such file")


def test_something_else_than_wavegate_is_recognised(cli: Cli, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    with _foreign(api.context.authority) as url:
        monkeypatch.setenv("WAVEGATE_SERVER", url)
        assert "is localhost a Wavegate server?" in cli("device", "list", code=1).err


@contextmanager
def _foreign(authority: Authority) -> Iterator[str]:
    """An HTTPS server that knows nothing and says so in HTML."""
    files = authority.service("server")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.certificate, files.key)

    def answer(listener: socket.socket) -> None:
        plain, _ = listener.accept()
        with context.wrap_socket(plain, server_side=True) as stream:
            stream.recv(65536)
            stream.sendall(b"HTTP/1.1 418 Teapot\r\nContent-Length: 4\r\nConnection: close\r\n\r\n<p/>")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        yield f"https://localhost:{listener.getsockname()[1]}"
        thread.join(10)
