"""A worker host on tiny models, raw HTTP to it, and clients that never stop, for tests of the data plane."""

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.models import linear_version
from tests.support.waiting import wait_until
from wavegate_agent.adapters.workers.host import WorkerExit, WorkerHost, WorkerSettings
from wavegate_agent.adapters.workers.listening import DeviceSockets, ListeningSockets
from wavegate_agent.sdk import Client
from wavegate_shared.errors import WavegateError

DEADLINE_S = 30.0


@contextmanager
def running_host(directory: Path, **settings: Any) -> Iterator[WorkerHost]:
    """A host without a version yet; everything ends with the block."""
    sockets = DeviceSockets(ListeningSockets(directory / "infer.sock", 0))
    host = WorkerHost("main", WorkerSettings(**settings), sockets)
    try:
        yield host
    finally:
        host.close()
        sockets.close()


@contextmanager
def two_hosts(directory: Path) -> Iterator[tuple[WorkerHost, WorkerHost]]:
    """Hosts of `toy` and of `other` on one socket, each with its version 1 live."""
    sockets = DeviceSockets(ListeningSockets(directory / "infer.sock", 0))
    hosts = WorkerHost("toy", WorkerSettings(), sockets), WorkerHost("other", WorkerSettings(), sockets)
    try:
        for host, model in zip(hosts, ("toy", "other"), strict=True):
            host.start_live(*linear_version(directory, 1, model=model))
        yield hosts
    finally:
        for host in hosts:
            host.close()
        sockets.close()


def wait_for_exits(host: WorkerHost) -> list[WorkerExit]:
    """The workers that ended by themselves, once there are some."""
    exits: list[WorkerExit] = []

    def some() -> bool:
        exits.extend(host.poll())
        return bool(exits)

    wait_until(some, "the end of a worker")
    return exits


def kill(pid: int | None, number: signal.Signals = signal.SIGSEGV) -> None:
    """End a worker as a fault would."""
    assert pid is not None
    os.kill(pid, number)


@dataclass
class Raw:
    """A raw keep-alive connection; answers are (status, fields, body)."""

    address: Path | tuple[str, int]
    sock: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        family = socket.AF_UNIX if isinstance(self.address, Path) else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.settimeout(DEADLINE_S)
        self.sock.connect(str(self.address) if isinstance(self.address, Path) else self.address)

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.sock.sendall(data)

    def read(self) -> tuple[int, dict[str, str], bytes]:
        """One whole answer."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.sock.recv(1)
            if not more:
                raise EOFError(data)
            data += more
        first, *lines = data.decode("latin-1").rstrip("\r\n").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = b""
        while (left := int(fields.get("content-length", 0)) - len(body)) > 0:
            body += self.sock.recv(left)
        return int(first.split()[1]), fields, body

    def ended(self) -> bool:
        """Whether the server closed the connection."""
        return self.sock.recv(1) == b""

    def post(self, path: str, body: bytes, **fields: str) -> tuple[int, dict[str, str], Any]:
        """POST; the body comes back decoded."""
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
        self.send(f"POST {path} HTTP/1.1\r\nHost: x\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        status, got, data = self.read()
        return status, got, json.loads(data)

    def get(self, path: str) -> tuple[int, dict[str, str], Any]:
        """GET; the body comes back decoded, None when empty."""
        self.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        status, got, data = self.read()
        return status, got, json.loads(data) if data else None


def request_body(*values: float, request_id: str = "") -> bytes:
    """A JSON request for the linear model."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": list(values or (1, 2, 3, 4))}
    return json.dumps({"inputs": [tensor], **({"id": request_id} if request_id else {})}).encode()


@dataclass
class Clients:
    """Clients that ask without a pause and label every answer, each on one connection.

    Attributes:
        answered: requests with the right answer.
        labelled: labels accepted and counted for the version that had answered.
        faults: everything else.
        retries: requests that had to be sent again.
        versions: who answered.
    """

    address: Path | tuple[str, int]
    count: int
    model: str = "toy"
    answered: int = 0
    labelled: int = 0
    retries: int = 0
    faults: list[str] = field(default_factory=list)
    versions: set[int] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> "Clients":
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(self.count)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        serial = 0
        with Client(self.address, self.model, timeout_s=DEADLINE_S) as client:
            while not self._stop.is_set():
                serial += 1
                self._ask(client, f"{id(self)}-{number}-{serial}", serial)
                self._stop.wait(0.01)
            with self._lock:
                self.retries += client.retries

    def _ask(self, client: Client, request_id: str, serial: int) -> None:
        sign = 1.0 if serial % 2 else -1.0
        try:
            answer = client.infer({"x": [[sign, sign, sign, sign]]}, request_id=request_id)
            feedback = client.feedback(request_id, int(sign > 0))
        except WavegateError as error:
            self._note(fault=str(error))
            return
        right = answer.id == request_id and (answer.values("logits")[1] > 0) == (sign > 0)
        counted = feedback.version == answer.version and feedback.scores == [1.0]
        self._note(fault="" if right and counted else f"{answer} {feedback}", version=answer.version)

    def _note(self, *, fault: str, version: int = 0) -> None:
        with self._lock:
            if fault:
                self.faults.append(fault)
            else:
                self.answered += 1
                self.labelled += 1
                self.versions.add(version)
