"""A whole server side for one agent, in memory, and workers that do as they are told.

Everything signed is really signed (`tuf_world.World`), every message takes its wire form, answers come on a thread of their
own as they do from a network. What can go wrong is a field: cut connections, lost and damaged chunks, a server that stores
nothing. Needs no server package, so that the agent's tests run where only the agent is installed.
"""

import hashlib
import queue
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from tests.support.agent_identity import enrolled
from tests.support.fake_host import FakeHost, FakeHosts
from tests.support.tuf_world import DEVICE, World, make_manifest, slot_of
from wavegate_agent.config import Config
from wavegate_agent.control.agent import Agent
from wavegate_shared.assignment import TIME_TYPE, Probation, SlotAssignment, TimeDocument
from wavegate_shared.chunks import CHUNK_BYTES, Chunk, Form, Frame, chunk_hash, cut
from wavegate_shared.dsse import Key, open_signed, seal
from wavegate_shared.manifest import Artifact, Manifest
from wavegate_shared.states import DeviceState
from wavegate_shared.topics import Topics
from wavegate_shared.wire import (
    REPORT_TYPE,
    Assign,
    ChunkRequest,
    DocumentRequest,
    Down,
    Hello,
    RenewRequest,
    Report,
    SignedReport,
    StateEvent,
    Stored,
    TimeAnswer,
    TimeRequest,
    Window,
    decode_up,
    encode,
)

__all__ = ["AgentWorld", "FakeHost", "RunningAgent", "enrolled"]

WAIT_S = 30.0
_CHUNK = 1024  # so that small artifacts have many


class FakeConnection:
    """The agent's end of the fake network."""

    def __init__(self, world: "AgentWorld", on_message: Any, on_connected: Any, on_acked: Any) -> None:
        self._world = world
        self.on_message, self.on_connected, self.on_acked = on_message, on_connected, on_acked
        self.penalty_s = 0.0
        self.up = False
        self.stopped = False
        self.queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="fake-network", daemon=True)

    @property
    def connected(self) -> bool:
        return self.up

    @property
    def room(self) -> int:
        return 20

    def start(self) -> None:
        self._thread.start()
        if not self._world.offline:
            self.queue.put(self.go_up)

    def stop(self) -> None:
        self.up = False
        self.queue.put(None)
        if self._thread.is_alive():
            self._thread.join(WAIT_S)

    def publish(self, topic: str, payload: bytes, qos: int = 1) -> bool:
        if not self.up:
            return False
        self.queue.put(lambda: self._world.receive(self, topic, payload))
        self.queue.put(self.on_acked)
        return True

    def reconnect(self) -> None:
        self._world.reconnects += 1
        self.queue.put(self.go_up)

    def deliver(self, topic: str, payload: bytes) -> None:
        self.queue.put(lambda: self.on_message(topic, payload) if self.up else None)

    def go_up(self) -> None:
        self.up = True
        self.on_connected()

    def _run(self) -> None:
        while (job := self.queue.get()) is not None:
            job()


class AgentWorld:
    """The server side: what is released, what is assigned, and everything the device said."""

    def __init__(self) -> None:
        self.tuf = World(now=datetime.now(UTC))  # noqa: TID251 - the agent under test reads the real clock
        self.topics = Topics()
        self.objects: dict[str, bytes] = {}
        self.manifests: dict[int, bytes] = {}
        self.models: dict[int, Manifest] = {}
        self.offline = False
        self.reconnects = 0
        self.stores = True
        self.answers_time = True
        self.drop: Callable[[int], bool] = lambda _: False
        self.damage: set[int] = set()
        self.on_chunk: Callable[[int], None] = lambda _: None
        self.chunks_sent: list[tuple[str, int]] = []
        self.said: list[Any] = []
        self.device_key: Key | None = None
        self.later_keys: list[Key] = []
        self.desired: bytes | None = None
        self.connection: FakeConnection | None = None
        self._changed = threading.Condition()
        self._seq = 0

    # --- what the server does ---------------------------------------------------------------------------------------------

    def release(
        self, version: int, *, model: bytes | None = None, vocab: bytes = b"v" * 3000, **changes: Any
    ) -> Manifest:
        """Publish a version whose model is a few kilobytes of its own; its vocabulary is the same for all."""
        body = model if model is not None else hashlib.sha256(b"%d" % version).digest() * 640
        files = {"model.onnx": ("model", body), "golden.npz": ("golden", b"g%d" % version * 500)}
        files["vocab.txt"] = ("vocab", vocab)
        artifacts = [self._artifact(name, role, data) for name, (role, data) in files.items()]
        self.republish(make_manifest(version, artifacts=artifacts, **changes))
        return self.models[version]

    def republish(self, manifest: Manifest) -> None:
        """Publish a manifest as it is."""
        self.models[manifest.version] = manifest
        self.manifests[manifest.version] = self.tuf.publish(manifest)

    def tuf_digest(self, version: int) -> str:
        """The digest of a version's manifest: its directory's name on a device."""
        return hashlib.sha256(self.manifests[version]).hexdigest()

    def envelope(
        self, version: int, *, seq: int | None = None, slot: dict[str, Any] | None = None, **more: Any
    ) -> bytes:
        """A signed assignment of a released version."""
        self._seq = seq if seq is not None else self._seq + 1
        wanted: SlotAssignment = slot_of(self.manifests[version], version=version, **(slot or {}))
        fields: dict[str, Any] = {"probation": Probation(seconds=0.0, requests=0), "rollout": "r-1", **more}
        return self.tuf.assign(wanted, seq=self._seq, **fields)

    def assign(self, version: int, **more: Any) -> int:
        """Assign and deliver a version; returns the number."""
        self.desired = encode(Assign(envelope=msgspec.Raw(self.envelope(version, **more))))
        self.send_raw(self.desired)
        return self._seq

    def send(self, message: Down) -> None:
        """Deliver a message to the device."""
        self.send_raw(encode(message))

    def send_raw(self, payload: bytes) -> None:
        """Deliver bytes to the device."""
        assert self.connection is not None
        self.connection.deliver(self.topics.cmd(DEVICE), payload)

    def cut(self) -> None:
        """The network goes away."""
        self.offline = True
        if self.connection is not None:
            self.connection.up = False

    def reconnect(self) -> None:
        """The network comes back."""
        self.offline = False
        if self.connection is not None:
            self.connection.queue.put(self.connection.go_up)

    # --- what the device said ---

    def wait(self, condition: Callable[[], Any], what: str = "") -> Any:
        """Wait until the condition holds; it is looked at after every message."""
        deadline = time.monotonic() + WAIT_S
        with self._changed:
            while not (found := condition()):
                left = deadline - time.monotonic()
                assert left > 0, (
                    f"{what or 'the condition'} did not come; said: {[str(m)[:200] for m in self.said[-12:]]}"
                )
                self._changed.wait(min(left, 0.05))
        return found

    @property
    def reports(self) -> list[Report]:
        """Signed reports so far, verified."""
        assert self.device_key is not None
        signed = [message for message in self.said if isinstance(message, SignedReport)]
        return [
            open_signed(bytes(s.envelope), Report, REPORT_TYPE, [self.device_key, *self.later_keys]) for s in signed
        ]

    def wait_report(self, seq: int) -> Report:
        """The report that ends assignment `seq`."""
        found: list[Report] = self.wait(lambda: [r for r in self.reports if r.assignment_seq == seq], f"report {seq}")
        return found[-1]

    def wait_code(self, code: str) -> Report:
        """A report with this code."""
        found: list[Report] = self.wait(lambda: [r for r in self.reports if r.code == code], f"report {code}")
        return found[-1]

    def wait_state(self, state: DeviceState, seq: int | None = None) -> StateEvent:
        """A state event."""

        def seen() -> list[StateEvent]:
            events = [m for m in self.said if isinstance(m, StateEvent) and m.state is state]
            return [event for event in events if seq is None or event.assignment_seq == seq]

        found: list[StateEvent] = self.wait(seen, f"state {state}")
        return found[-1]

    def states(self, seq: int) -> list[str]:
        """The chain of states of an assignment, progress left out."""
        events = [m for m in self.said if isinstance(m, StateEvent) and m.assignment_seq == seq and m.progress is None]
        return [event.state.value for event in events]

    @property
    def windows(self) -> list[Window]:
        """Telemetry so far."""
        return [message for message in self.said if isinstance(message, Window)]

    @property
    def hellos(self) -> list[Hello]:
        """Hellos so far."""
        return [message for message in self.said if isinstance(message, Hello)]

    # --- the network ------------------------------------------------------------------------------------------------------

    def connect(self, _address: Any, *, on_message: Any, on_connected: Any, on_acked: Any) -> FakeConnection:
        """For `Agent(connect=...)`."""
        self.connection = FakeConnection(self, on_message, on_connected, on_acked)
        return self.connection

    def receive(self, connection: FakeConnection, topic: str, payload: bytes) -> None:
        """A message of the device, on the network's thread."""
        if not connection.up:
            return
        up = self.topics.parse_up(topic)
        assert up is not None
        assert (up.device, up.shard) == (DEVICE, 3)
        message = decode_up(payload)
        match message:
            case ChunkRequest():
                self._send_chunks(connection, message)
            case DocumentRequest():
                self._send_document(connection, message)
            case TimeRequest():
                self._send_time(message)
            case _:
                with self._changed:
                    self.said.append(message)
                    self._changed.notify_all()
                if isinstance(message, Hello) and self.desired is not None:
                    self.send_raw(self.desired)
                if self.stores and not isinstance(message, Hello | RenewRequest):
                    self.send(Stored(boot=message.boot, seq=message.seq))

    def _send_chunks(self, connection: FakeConnection, request: ChunkRequest) -> None:
        data = self.objects.get(request.sha256)
        topic = self.topics.chunks(DEVICE)
        for index in request.indexes:
            number = len(self.chunks_sent)
            self.chunks_sent.append((request.sha256, index))
            self.on_chunk(number)
            if self.drop(number):
                continue
            if data is None:
                connection.deliver(topic, Frame(Form.MISSING, request.xfer, 0, 0, 0, b"").encode())
                return
            piece = data[index * _CHUNK : (index + 1) * _CHUNK]
            if number in self.damage:
                piece = bytes([piece[0] ^ 1]) + piece[1:]
            total = -(-len(data) // _CHUNK)
            connection.deliver(topic, Frame(Form.RAW, request.xfer, index, total, 0, piece).encode())

    def _send_document(self, connection: FakeConnection, request: DocumentRequest) -> None:
        data = self.tuf.documents.get(request.name)
        if data is None:
            frame = Frame(Form.MISSING, request.xfer, 0, 0, 0, b"")
        else:
            piece = data[request.offset :][: min(request.max_bytes, CHUNK_BYTES, 700)]
            frame = Frame(Form.DOCUMENT, request.xfer, 0, len(data), request.offset, piece)
        connection.deliver(self.topics.chunks(DEVICE), frame.encode())

    def _send_time(self, request: TimeRequest) -> None:
        if self.answers_time:
            document = TimeDocument(nonce=request.nonce, time=datetime.now(UTC))  # noqa: TID251 - the server's clock
            self.send(TimeAnswer(envelope=msgspec.Raw(seal(document, TIME_TYPE, self.tuf.signers["time"]))))

    def _artifact(self, name: str, role: str, data: bytes) -> Artifact:
        sha256 = hashlib.sha256(data).hexdigest()
        self.objects[sha256] = data
        chunks = [Chunk(chunk_hash(piece), len(piece)) for piece in cut([data], _CHUNK)]
        return Artifact(name=name, role=role, sha256=sha256, size_bytes=len(data), chunks=chunks)


class RunningAgent:
    """A real agent on a thread, with fake workers, against an `AgentWorld`; `other` are those of model `labels`."""

    def __init__(
        self,
        state: Path,
        world: AgentWorld,
        host: FakeHost | None = None,
        *,
        other: FakeHost | None = None,
        **options: Any,
    ) -> None:
        self.state, self.world = state, world
        self.host, self.other = host or FakeHost(), other
        if not (state / "identity").exists():
            world.device_key = enrolled(state, world.tuf)
        self.config = Config(state_dir=state, **{"reserve_mb": 0, "window_s": 60.0, **options})
        self.agent = Agent(self.config, hosts=FakeHosts(self.host, other), connect=world.connect)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="agent", daemon=True)

    def __enter__(self) -> "RunningAgent":
        known = len(self.world.hellos)
        self._thread.start()
        if not self.world.offline:
            self.world.wait(lambda: len(self.world.hellos) > known or self._error, "hello")
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop it, and see that it ended by itself and without an error."""
        self.agent.stop()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive(), "the agent did not stop"
        if self._error is not None:
            raise self._error

    @property
    def state_now(self) -> str:
        """The state of the model `pairs`."""
        return self.agent.machines.slot("pairs").state.value

    def install(self, version: int, **more: Any) -> Report:
        """Assign a version and wait for its report."""
        return self.world.wait_report(self.world.assign(version, **more))

    def _run(self) -> None:
        try:
            self.agent.run()
        except BaseException as error:
            self._error = error
