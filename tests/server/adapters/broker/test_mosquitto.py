"""The generated configuration; what it achieves is tested in tests/e2e/test_isolation.py."""

import subprocess
from pathlib import Path

import pytest

from tests.support.broker import TestAuthority
from wavegate_server.adapters.broker.mosquitto import (
    MosquittoSettings,
    access_list,
    configuration,
    find_mosquitto,
    write_files,
)
from wavegate_shared.topics import Topics


def settings(directory: Path, **changes: object) -> MosquittoSettings:
    plain = {
        "directory": directory,
        "host": "127.0.0.1",
        "port": 8883,
        "ca": Path("/ca.pem"),
        "certificate": Path("/broker.pem"),
        "key": Path("/broker.key"),
        "topics": Topics(),
    }
    return MosquittoSettings(**(plain | changes))  # type: ignore[arg-type]  # tested by mypy at the real callers


@pytest.mark.parametrize(
    "line",
    [
        "listener 8883 127.0.0.1",
        "require_certificate true",
        "use_identity_as_username true",
        "use_username_as_clientid true",
        "allow_anonymous false",
        "max_packet_size 1048576",
        "max_queued_messages 64",
        "set_tcp_nodelay true",
        "persistence true",
        "retain_available false",
    ],
)
def test_what_keeps_devices_apart_and_memory_bounded_stands_in_it(tmp_path: Path, line: str) -> None:
    assert line in configuration(settings(tmp_path)).splitlines()


def test_the_revocation_list_and_the_user_are_options(tmp_path: Path) -> None:
    assert "crlfile" not in configuration(settings(tmp_path))
    assert not any(line.startswith("user ") for line in configuration(settings(tmp_path)).splitlines())
    text = configuration(settings(tmp_path, crl=Path("/crl.pem"), run_as="wavegate", max_queued=9))
    assert {"crlfile /crl.pem", "user wavegate", "max_queued_messages 9"} <= set(text.splitlines())


def test_the_access_list_gives_devices_their_own_and_denied_ones_nothing() -> None:
    lines = access_list(Topics("p/v1"), ["dev-9", "dev-2"]).splitlines()
    assert "pattern write p/v1/up/+/%u/#" in lines
    assert "pattern read p/v1/d/%u/#" in lines
    assert "pattern read p/v1/x/+/c" in lines
    for user in ("publisher", "ingest-0", "ingest-15"):
        assert lines[lines.index(f"user {user}") + 1] == "topic readwrite p/v1/#"
    for user in ("dev-2", "dev-9"):
        assert lines[lines.index(f"user {user}") + 1] == "topic deny #"


def test_writing_twice_gives_the_same_files(tmp_path: Path) -> None:
    first = write_files(settings(tmp_path / "new")).read_text()
    assert write_files(settings(tmp_path / "new")).read_text() == first
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["mosquitto.acl", "mosquitto.conf"]


@pytest.mark.mosquitto
def test_mosquitto_understands_every_line(tmp_path: Path) -> None:
    """Started on a port that is taken, it reads everything and then says just that."""
    program = find_mosquitto()
    if program is None:
        pytest.skip("mosquitto is not installed: apt-get install mosquitto")
    files = TestAuthority(tmp_path / "ca").service("broker")
    whole = settings(
        tmp_path,
        ca=files.ca,
        certificate=files.certificate,
        key=files.key,
        crl=tmp_path / "ca" / "crl.pem",
        host="203.0.113.1",
        run_as="root",
    )
    done = subprocess.run([program, "-c", write_files(whole)], capture_output=True, text=True, timeout=20, check=False)
    assert "Cannot assign requested address" in done.stderr
    assert "Unknown configuration variable" not in done.stderr
