"""The listening sockets of a slot."""

import socket
import stat
from pathlib import Path

import pytest

from wavegate_agent.adapters.workers.listening import ListeningSockets


def test_the_unix_socket_is_for_the_group_only(tmp_path: Path) -> None:
    sockets = ListeningSockets(tmp_path / "deep" / "infer.sock", None)
    assert stat.S_IMODE((tmp_path / "deep" / "infer.sock").stat().st_mode) == 0o660
    assert (sockets.tcp_port, len(sockets.descriptors)) == (None, 1)
    sockets.close()
    assert not (tmp_path / "deep" / "infer.sock").exists()


def test_tcp_is_on_loopback_only(tmp_path: Path) -> None:
    sockets = ListeningSockets(tmp_path / "s", 0)
    with socket.create_connection(("127.0.0.1", sockets.tcp_port or 0), 5) as client:
        assert client.getpeername()[0] == "127.0.0.1"
    sockets.close()


def test_a_name_left_by_a_killed_agent_is_taken_over(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    ListeningSockets(tmp_path / "s", None).close()


def test_a_name_in_use_or_not_a_socket_is_left_alone(tmp_path: Path) -> None:
    first = ListeningSockets(tmp_path / "s", None)
    (tmp_path / "file").write_text("precious")
    for name in ("s", "file"):
        with pytest.raises(OSError, match="in use"):
            ListeningSockets(tmp_path / name, None)
    assert (tmp_path / "file").read_text() == "precious"
    first.close()


def test_a_port_in_use_leaves_no_socket_behind(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            ListeningSockets(tmp_path / "s", taken.getsockname()[1])
    assert not (tmp_path / "s").exists()
