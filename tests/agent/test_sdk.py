"""The client: what it sends and reads, when it asks again, what it raises."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.support.models import linear_version, text_version
from tests.support.serving import running_host
from wavegate_agent.adapters.workers.host import WorkerHost
from wavegate_agent.sdk import Client
from wavegate_shared.errors import DeviceError, TransferError, UsageError


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WorkerHost, Path]]:
    directory = tmp_path_factory.mktemp("linear")
    with running_host(directory) as made:
        made.start_live(*linear_version(directory, 5))
        yield made, directory / "infer.sock"


def test_an_answer_over_both_sockets(host: tuple[WorkerHost, Path]) -> None:
    for address in (host[1], str(host[1]), ("127.0.0.1", host[0].tcp_port or 0)):
        with Client(address, "toy") as client:
            answer = client.infer({"x": np.ones((2, 4), dtype=np.float32)}, request_id="r")
            assert (answer.id, answer.model, answer.version, answer.shapes) == ("r", "toy", 5, {"logits": [2, 2]})
            assert answer.values("logits") == [-4, 4, -4, 4]
            assert answer.array("logits").tolist() == [[-4, 4], [-4, 4]]
            assert len(answer.manifest_sha256) == 64
            assert client.feedback("r", [1, 0]).scores == [1.0, 0.0]
            assert client.ready()
            assert client.metadata()["versions"] == ["5"]


def test_mistakes_come_back_as_errors(host: tuple[WorkerHost, Path]) -> None:
    with Client(host[1], "toy") as client:
        with pytest.raises(UsageError) as shape:
            client.infer({"x": [[1.0, 2.0]]})
        with pytest.raises(UsageError) as unknown:
            client.feedback("never asked", 1)
        with pytest.raises(UsageError) as kind:
            client.infer({"x": np.array([1 + 2j])})
    with Client(host[1], "other") as stranger:
        assert not stranger.ready()
    assert (shape.value.code, unknown.value.code, kind.value.code) == ("invalid", "not_found", "invalid")


def test_text_pairs_need_no_numpy(tmp_path: Path) -> None:
    with running_host(tmp_path) as host:
        host.start_live(*text_version(tmp_path, 1))
        code = (
            "import sys\nfrom wavegate_agent.sdk import Client\n"
            "with Client(sys.argv[1], 'toy') as client:\n"
            "    answer = client.infer_text_pairs([('ab', 'c')], request_id='r')\n"
            "    print(answer.values('logits'), client.feedback('r', 0).scores, 'numpy' in sys.modules)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "infer.sock")], capture_output=True, text=True, check=True
        )
    assert done.stdout.strip() == "[2.0, -2.0] [1.0] False"


@contextmanager
def scripted(path: Path, *answers: bytes) -> Iterator[list[bytes]]:
    """A server that gives each connection one scripted answer, then closes it."""
    seen: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))
        door.listen()

        def serve() -> None:
            for answer in answers:
                connection, _ = door.accept()
                with connection:
                    seen.append(connection.recv(65536))
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield seen
        thread.join()


FINE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def test_a_reset_connection_is_asked_again_once(tmp_path: Path) -> None:
    with scripted(tmp_path / "s", b"", FINE) as seen, Client(tmp_path / "s", "m") as client:
        assert client.metadata() == {}
    assert (len(seen), seen[0] == seen[1], client.retries) == (2, True, 1)


def test_two_resets_are_given_up(tmp_path: Path) -> None:
    with (
        scripted(tmp_path / "s", b"", b"HTTP/1.1 200 OK\r\nContent-Le") as seen,
        Client(tmp_path / "s", "m") as client,
        pytest.raises(TransferError) as lost,
    ):
        client.metadata()
    assert (len(seen), lost.value.code) == (2, "not_connected")


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 100_000])
def test_what_is_not_an_answer_is_not_asked_again(tmp_path: Path, answer: bytes) -> None:
    with (
        scripted(tmp_path / "s", answer) as seen,
        Client(tmp_path / "s", "m") as client,
        pytest.raises(TransferError),
    ):
        client.metadata()
    assert len(seen) == 1


def test_an_error_without_our_code_keeps_its_kind(tmp_path: Path) -> None:
    answers = [b"HTTP/1.1 500 X\r\nContent-Length: 1\r\n\r\nx", b"HTTP/1.1 400 X\r\nContent-Length: 2\r\n\r\n{}"]
    with scripted(tmp_path / "s", *answers), Client(tmp_path / "s", "m") as client:
        with pytest.raises(DeviceError):
            client.metadata()
        client.close()
        with pytest.raises(UsageError):
            client.metadata()


def test_nobody_there(tmp_path: Path) -> None:
    with Client(tmp_path / "nothing", "m") as client:
        assert not client.ready()
        with pytest.raises(TransferError):
            client.metadata()


def test_a_slow_answer_is_not_asked_again(host: tuple[WorkerHost, Path], tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "s"))
        door.listen()
        with Client(tmp_path / "s", "m", timeout_s=0.05) as client, pytest.raises(TransferError):
            client.metadata()
        assert client.retries == 0
