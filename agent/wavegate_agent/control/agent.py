"""The control process: wiring and threads.

    step thread (the caller of `Agent.run`)   machines, verification, files, workers: everything that may block
    mqtt                                      paho's network thread: hands messages over and never waits
    uplink                                    telemetry windows, the outbox, systemd's watchdog
    status                                    the status socket

Order at start: journal, workers, network, then whatever was going on. So a device serves before it talks, and also when it
never gets to talk. No numpy and no onnxruntime in this process (asserted in a test).
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from wavegate_agent.adapters import clock
from wavegate_agent.adapters.device import facts
from wavegate_agent.adapters.device.status_socket import StatusSocket
from wavegate_agent.adapters.device.systemd import notify
from wavegate_agent.adapters.disk.journal import Journal
from wavegate_agent.adapters.disk.outbox import Outbox
from wavegate_agent.adapters.disk.version_store import VersionStore
from wavegate_agent.adapters.network.identity_renewal import IdentityRenewal
from wavegate_agent.adapters.network.image_repository import ImageRepository
from wavegate_agent.adapters.network.mqtt import BrokerConnection
from wavegate_agent.adapters.network.verifier import Verifier
from wavegate_agent.config import Config, address_of, load_identity
from wavegate_agent.control.admission import Admission
from wavegate_agent.control.assignment_files import AssignmentFiles
from wavegate_agent.control.boot import WorkerHosts, figures_path, first_record, rename_figures
from wavegate_agent.control.crash_loops import CrashLoops
from wavegate_agent.control.downloads import Downloads
from wavegate_agent.control.figures import FiguresFile
from wavegate_agent.control.machines import Machines
from wavegate_agent.control.messages import Messages
from wavegate_agent.control.outbox_sender import OutboxSender
from wavegate_agent.control.ports import Connection, Hosts
from wavegate_agent.control.renewal import CertificateRenewal
from wavegate_agent.control.room import Room
from wavegate_agent.control.slot_work import SharedServices, SlotWork
from wavegate_agent.control.status import books, clocks
from wavegate_agent.control.trusted_clock import TrustedClock
from wavegate_agent.control.uplink_thread import UplinkThread
from wavegate_agent.core.machine_types import ActiveLost
from wavegate_shared.dsse import signer_from_pem
from wavegate_shared.errors import TrustError, WavegateError
from wavegate_shared.topics import Topics
from wavegate_shared.wire import Assign, Command, Renewed, Stored, TimeAnswer, decode_down, encode

__all__ = ["Agent"]

_LOG = logging.getLogger(__name__)
_LOOK_S = 0.5
"""How often probations, workers and retries are looked at."""
_STUCK_S = 420.0
"""A step that shows no sign of life for this long is stuck; the longest lawful one is a golden set."""
_REVOKED_WAIT_S = 600.0
Connect = Callable[..., Connection]
_GRACE_S = 3.0
"""How long a stop waits for the step in hand before it ends the workers under it."""
_WAITING_S = 30.0
"""How often an assignment that could not be judged is tried again while the network is there."""


@dataclass(frozen=True, slots=True)
class _Came:
    """Something for the step thread: an envelope, an error to report, or news of the connection."""

    envelope: bytes | None = None
    refused: WavegateError | None = None
    connected: bool = False


class Agent:
    """One device's control process. `run` returns after `stop`; nothing is left behind then.

    Args:
        config: see `Config`.
        hosts: makes the worker host of each model; a test may bring its own.
        connect: makes the connection to the broker, as `BrokerConnection`; a test may bring its own.

    Raises:
        UsageError: `setup` when the device is not enrolled or another agent holds the state directory.
    """

    def __init__(self, config: Config, hosts: Hosts | None = None, connect: Connect = BrokerConnection) -> None:
        self._config = config
        self.identity = load_identity(config.identity)
        self._topics = Topics(self.identity.topic_prefix)
        self._inbox: queue.SimpleQueue[_Came] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._newer = threading.Event()
        self._over = threading.Event()
        self._asked_to_stop: queue.SimpleQueue[None] = queue.SimpleQueue()  # safe to put to from a signal handler
        self._beaten = time.monotonic()
        self._try_again = 0.0
        self._crash_loops = CrashLoops(self.identity.device, config.crash_loop, config.crash_loop_s)
        self._hosts = hosts or WorkerHosts(config)
        self._connect = connect
        self._open()

    # --- life -------------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve, connect, follow assignments; returns after `stop`."""
        closer = threading.Thread(target=self._close_late, name="closer", daemon=True)
        try:
            closer.start()
            self.machines.remember()
            self.machines.serve()
            self._status_socket.start()
            self._connection.start()
            self._uplink_thread.start()
            notify("READY=1")
            self.machines.resume()
            while not self._stopping.is_set():
                self._turn()
        finally:
            self._stopping.set()
            notify("STOPPING=1")
            self._over.set()
            self._asked_to_stop.put(None)
            closer.join()
            self._close()

    def stop(self) -> None:
        """End `run` soon; may be called from a signal handler or another thread."""
        self._stopping.set()
        self._inbox.put(_Came())
        self._asked_to_stop.put(None)

    def status(self) -> dict[str, object]:
        """What `wavegate-agent status` prints."""
        return {
            "device": self.identity.device,
            "connected": self._connection.connected,
            **clocks(self._trusted_clock, self._renewal),
            **books(self.machines, len(self._outbox)),
            "infer_socket": str(self._config.infer_socket),
            "http_port": self._hosts.tcp_port,
            "slots": {name: steps.status(self.machines.slot(name)) for name, steps in self._steps.items()},
        }

    # --- opening and closing ----------------------------------------------------------------------------------------------

    def _open(self) -> None:
        config, files = self._config, self._config.identity
        state = config.state_dir
        self._journal = Journal(state / "journal")  # from here on no other agent works in this directory
        IdentityRenewal(files.directory).settle()
        self._outbox = Outbox(state / "outbox.db")
        known = self._journal.load()
        rename_figures(state, known)
        record = first_record(known, self._outbox.boot)
        self._outbox.start(record.boot)
        self._store = VersionStore(state / "models", reserve_bytes=config.reserve_mb << 20)
        self._messages = Messages(self.identity, signer_from_pem(files.key.read_bytes()), self._outbox)
        self._outbox_sender = OutboxSender(self._outbox, self._topics, self.identity.shard, self.identity.device)
        self._connection = self._connect(
            address_of(self.identity, files),
            on_message=self._on_message,
            on_connected=self._on_connected,
            on_acked=self._wake,
        )
        self._downloads = Downloads(self._ask)
        repository = ImageRepository(state / "tuf", files.root.read_bytes(), self._downloads.document)
        self._trusted_clock = TrustedClock(record.time_floor, self._downloads.ask_time, repository.time_keys)
        device = facts.device_facts(self.identity.device, self.identity.hardware_class, bench=self.identity.bench)
        verifier = Verifier(repository, device)
        self._assignment_files = AssignmentFiles(state, lambda: self.machines.assignment_seqs)
        self._admission = Admission(verifier, self._trusted_clock, self._assignment_files, self._refuse)
        self.machines = Machines(
            self.identity.device,
            self._journal,
            record,
            messages=self._messages,
            now=clock.now,
            said=self._wake,
            beat=self._beat,
            stopping=self._stopping.is_set,
        )
        self._services = self._shared_services(verifier)
        self._steps: dict[str, SlotWork] = {}  # replaced, never changed: other threads read it
        for name in record.slots:
            self._attach(name)
        self._renewal = CertificateRenewal(
            state,
            self.identity.device,
            ask=self._ask,
            now=self._trusted_clock.now,
            changed=self._key_changed,
            wake=self._wake,
        )
        self._uplink_thread = UplinkThread(
            self._outbox_sender,
            self._connection,
            window_s=config.window_s,
            renewal=self._renewal.turn,
            windows=self._windows,
            hello=self._hello,
            attempt=self.machines.attempt,
            alive=lambda: time.monotonic() - self._beaten < _STUCK_S,
        )
        self._status_socket = StatusSocket(config.status_socket, self.status)

    def _shared_services(self, verifier: Verifier) -> SharedServices:
        room = Room(self.machines, self._store, self._assignment_files, self._config.models_memory_mb)
        return SharedServices(
            store=self._store,
            verifier=verifier,
            downloads=self._downloads,
            assignment_files=self._assignment_files,
            now=self._trusted_clock.now,
            quarantined=lambda: self.machines.record.quarantined,
            interrupted=lambda: self._newer.is_set() or self._stopping.is_set(),
            beat=self._beat,
            room=room,
            progress=self._progress,
            waits=self._waits,
        )

    def _attach(self, name: str) -> None:
        figures = FiguresFile(figures_path(self._config.state_dir, name))
        steps = SlotWork(name, self._services, lambda: self._hosts.make(name), figures)
        self.machines.attach(name, steps)
        self._steps = {**self._steps, name: steps}

    def _detach(self, name: str) -> None:
        steps = self._steps[name]
        self._steps = {other: known for other, known in self._steps.items() if other != name}
        steps.host.close()
        steps.evidence.delete()
        self.machines.detach(name)
        self._crash_loops.forget(name)
        self._uplink_thread.wake(hello=True)

    def _close_late(self) -> None:
        """A step may wait for a worker for minutes; a stop does not wait that long, it ends the workers."""
        self._asked_to_stop.get()
        if not self._over.wait(_GRACE_S):
            for steps in self._steps.values():
                steps.host.close()

    def _close(self) -> None:
        self._connection.stop()
        self._uplink_thread.stop()
        self._renewal.close()
        self._status_socket.close()
        for steps in self._steps.values():
            steps.host.close()
        self._hosts.close()
        self.machines.leave()
        self._outbox.close()
        self._journal.close()

    # --- step thread ------------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Wait for something, handle it, let time pass."""
        connected = self._handle(self._next())
        while not self._stopping.is_set() and not self._inbox.empty():
            connected = self._handle(self._next()) or connected
        if self._stopping.is_set():
            return
        if self._admission.waiting is not None and (connected or time.monotonic() > self._try_again):
            self._take(self._admission.waiting)
        self._watch_workers()
        self.machines.tick(connected=connected)
        for name in self.machines.empty:
            self._detach(name)
        self._beat()

    def _next(self) -> _Came | None:
        due = self.machines.due
        wait = 0.0 if self.machines.busy else _LOOK_S if due is None else min(_LOOK_S, max(0.0, due - time.monotonic()))
        try:
            return self._inbox.get(timeout=max(0.001, wait))
        except queue.Empty:
            return None

    def _handle(self, came: _Came | None) -> bool:
        """Returns whether the network just came back."""
        if came is None:
            return False
        if came.refused is not None:
            self._refuse(came.refused)
        if came.envelope is not None:
            self._newer.clear()
            self._take(came.envelope)
        return came.connected

    def _take(self, envelope: bytes) -> None:
        record = self.machines.record
        self._try_again = time.monotonic() + _WAITING_S
        accepted = self.machines.attempt(lambda: self._admission.take(envelope, record))
        if isinstance(accepted, WavegateError):
            self._refuse(accepted)
            return
        if accepted is None:
            return
        floor = self._trusted_clock.seen(accepted.assignment)
        for name in accepted.offers:
            if name not in self._steps:
                self._attach(name)
        self.machines.accept(accepted.assignment, floor, accepted.offers)

    def _refuse(self, error: WavegateError) -> None:
        """Something was wrong before it became an assignment: say so, change nothing."""
        name = next(iter(self._steps)) if len(self._steps) == 1 else ""  # of several models it is nobody's
        said = self._messages.refusal(name, self.machines.slot(name), error, clock.now(), time.monotonic())
        if said:
            _LOG.warning("refused device=%s code=%s detail=%s", self.identity.device, error.code, error.detail)
            self._uplink_thread.wake()

    def _watch_workers(self) -> None:
        for name, steps in self._steps.items():
            detail = self._crash_loops.look(name, steps.host.poll(), time.monotonic())
            if detail:
                self.machines.feed(name, ActiveLost("candidate_crashed", detail))

    # --- network thread ---------------------------------------------------------------------------------------------------

    def _on_message(self, topic: str, payload: bytes) -> None:
        if topic == self._topics.chunks(self.identity.device):
            self._downloads.frame(payload)
            return
        try:
            message = decode_down(payload)
        except TrustError as error:
            self._inbox.put(_Came(refused=error))
            return
        match message:
            case Assign():
                self._newer.set()
                self._inbox.put(_Came(envelope=bytes(message.envelope)))
            case Stored():
                self._outbox_sender.stored((message.boot, message.seq))
            case TimeAnswer():
                self._downloads.time_answer(bytes(message.envelope))
            case Renewed():
                self._renewal.answer(message)
            case Command(name="hello"):
                self._uplink_thread.wake(hello=True)
            case Command(name="stop"):
                self._connection.penalty_s = _REVOKED_WAIT_S

    def _on_connected(self) -> None:
        self._renewal.connected()
        self._outbox_sender.reconnected()
        self._uplink_thread.wake(hello=True)
        self._inbox.put(_Came(connected=True))

    def _ask(self, message: bytes) -> bool:
        return self._connection.publish(self._topics.up(self.identity.shard, self.identity.device, "rq"), message)

    # --- uplink thread ------------------------------------------------------------------------------------------------------

    def _windows(self, start: datetime, seconds: float) -> None:
        for name, steps in self._steps.items():
            for stats in steps.live.window():
                self._messages.window(name, stats, start, seconds)

    def _hello(self) -> None:
        hosts = {f"workers_{name}": getattr(steps.host, "priority", "") for name, steps in self._steps.items()}
        hello = self._messages.hello(
            self.machines.record,
            self._config.state_dir / "models",
            clock=self._trusted_clock.state,
            certificate=self._renewal.in_use,
            extra=hosts,
        )
        topic = self._topics.up(self.identity.shard, self.identity.device, "ev")
        self._connection.publish(topic, encode(hello))

    def _key_changed(self, key: bytes) -> None:
        self._messages.sign_with(signer_from_pem(key))
        self._connection.reconnect()

    def _wake(self, inventory_changed: bool = False) -> None:
        self._uplink_thread.wake(hello=inventory_changed)

    # --- small ------------------------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        self._beaten = time.monotonic()

    def _progress(self, name: str, share: float) -> None:
        self._messages.state(name, self.machines.slot(name), clock.now(), progress=round(share, 3))
        self._uplink_thread.wake()

    def _waits(self, name: str, detail: str, live_requests: int) -> None:
        self._messages.state(name, self.machines.slot(name), clock.now(), detail=detail, live_requests=live_requests)
        self._uplink_thread.wake()
