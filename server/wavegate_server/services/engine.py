"""The engine: looks at every rollout that is unfinished, or completed and still watched, takes one step, and sends what was decided.

Two threads. The tick thread reads a rollout and its evidence, takes the pure step, and writes the outcome with the orders it gives, a
part of the devices at a time. It looks only at rollouts about which something was said, or whose time has come. It also keeps what runs by the clock: signatures that come near their expiry, orders that nobody
acknowledged, hooks such as retention. The sender thread empties the outbox, at least once each message, in order per device.

Stopped or killed at any point it goes on where it was: nothing is decided in memory. Several engines may run on PostgreSQL (row
lock per rollout); with SQLite there is one.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

import sqlalchemy
from sqlmodel import Session, col, delete, select, update

from wavegate_server.adapters import clock
from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.database.tables import Outbox
from wavegate_server.adapters.store.assignments import AssignmentWriter, MetadataVersions, Sealer
from wavegate_server.adapters.store.gate_evidence import EvidenceStore
from wavegate_server.adapters.store.rollout_parts import PartWriter
from wavegate_server.adapters.store.rollout_view import Mark, load_view, marks
from wavegate_server.config import Settings
from wavegate_server.core.gate.evidence import Telemetry
from wavegate_server.core.rollout.after import idle_part, step_after
from wavegate_server.core.rollout.due import complete_until, next_look
from wavegate_server.core.rollout.gate_inputs import soak_over
from wavegate_server.core.rollout.parts import PART
from wavegate_server.core.rollout.plan import RolloutView, Transition
from wavegate_server.core.rollout.step import step
from wavegate_shared.errors import TransferError
from wavegate_shared.states import RolloutState

__all__ = ["Engine", "Hook", "Metadata", "Sender"]

_LOG = logging.getLogger(__name__)
_ACTOR = "engine"
_RESEND = timedelta(seconds=30)
_HOUSEKEEPING_S = 5.0
_HOOK_S = 60.0
_SEND_BATCH = 200
_KEEP_SENT = timedelta(days=2)
_PARTS_A_TURN = 10
_TURNS = 20
"""So many times a part of orders is renewed or sent again in one round of housekeeping."""
_REST, _BRIEF_S = 4.0, 0.05
"""After a look that took longer than that, devices' words are left waiting for four times what it took more."""

Hook = Callable[[datetime], object]
"""Something to be done about once a minute, with the time: retention, roll-up repair."""


class Sender(Protocol):
    """Sends to devices: `adapters/broker/clients.Downlink`."""

    def publish(self, topic: str, payload: bytes, qos: int) -> None:
        """Hand one message to the broker; TransferError when it does not take it."""


class Metadata(MetadataVersions, Protocol):
    """The image repository: `adapters/trust/image_repository.ImageRepository`."""

    def resign_online(self, now: datetime) -> bool:
        """Sign snapshot and timestamp anew when due."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """The last look at a rollout, after which nothing was to be done.

    Attributes:
        mark: as it was then; None: there may be more to do.
        due: when to look again even if nobody says anything.
        not_before: by the monotonic clock; looks at a large rollout take long, and others have to be looked at too.
    """

    mark: Mark | None
    due: datetime | None
    not_before: float

    def rests(self, mark: Mark, now: datetime, monotonic: float) -> bool:
        """Whether a look now would find nothing."""
        if self.mark is None or self.due is None:
            return False
        same = mark == self.mark and now < self.due
        only_words = mark.revision == self.mark.revision and now < self.due
        return same or (only_words and monotonic < self.not_before)


class Engine:
    """Runs rollouts. `tick` once does all that is due; `start` does it every `settings.tick_s`.

    `rounds` is called in every tick: `services/bench/rounds.BenchRounds.tick`.
    """

    def __init__(
        self,
        database: sqlalchemy.Engine,
        director: Sealer,
        tuf_repo: Metadata,
        downlink: Sender,
        settings: Settings,
        *,
        now: Callable[[], datetime] = clock.now,
        hooks: Sequence[Hook] = (),
        rounds: Callable[[datetime], int] = lambda _: 0,
    ) -> None:
        self.orders = AssignmentWriter(director, tuf_repo, settings.topics)
        self.errors = 0
        self._database = database
        self._tuf_repo = tuf_repo
        self._downlink = downlink
        self._tick_s = settings.tick_s
        self._now = now
        self._hooks = tuple(hooks)
        self._rounds = rounds
        self._since = now()
        self._evidence = EvidenceStore()
        self._judged: dict[str, tuple[int, int, bool, bool]] = {}
        self._seen: dict[str, _Seen] = {}
        self._parts: dict[str, PartWriter] = {}
        self._due_housekeeping = 0.0
        self._due_hooks = 0.0
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start both threads."""
        for name, body in (("engine-tick", self._tick_loop), ("engine-send", self._send_loop)):
            thread = threading.Thread(target=body, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End both threads; a step under way is finished first. Idempotent."""
        self._stop.set()
        self._wake.set()
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def wake(self) -> None:
        """There may be something in the outbox: send it now."""
        self._wake.set()

    def tick(self) -> bool:
        """One look at everything; whether there is more to write at once.

        What fails in one rollout is logged and counted, and does not stop the others.
        """
        with read(self._database) as session:
            found = marks(session, self._now())
        self._forget([mark.id for mark in found])
        for mark in found:
            self._guarded("rollout.step_failed", partial(self._look_at, mark))
        if self._guarded("bench.step_failed", lambda: self._rounds(self._now())):
            self._wake.set()
        self._guarded("engine.housekeeping_failed", self._housekeeping)
        self._guarded("engine.hooks_failed", self._run_hooks)
        return bool(self._parts)

    def send(self) -> int:
        """Send what stands in the outbox, oldest first; how many. A message that cannot be sent stays for the next time."""
        with read(self._database) as session:
            query = select(Outbox).where(col(Outbox.sent_at).is_(None)).order_by(col(Outbox.id)).limit(_SEND_BATCH)
            rows = list(session.exec(query))
        sent: list[int] = []
        try:
            for row in rows:
                self._downlink.publish(row.topic, row.payload, 1)
                sent.append(row.id or 0)
        except TransferError as error:
            _LOG.warning("engine.send_failed waiting=%d error=%s", len(rows) - len(sent), error)
        finally:
            if sent:
                with write(self._database) as session:
                    session.exec(update(Outbox).where(col(Outbox.id).in_(sent)).values(sent_at=self._now()))
        return len(sent)

    def _look_at(self, mark: Mark) -> None:
        """Go on with the parts of a decision, or take a step where something was said about the rollout or its time has come."""
        if mark.id in self._parts:
            self._go_on(mark.id)
            return
        seen = self._seen.get(mark.id)
        if seen is not None and seen.rests(mark, self._now(), time.monotonic()):
            return
        began = time.monotonic()
        due = self._step(mark.id)
        ended = time.monotonic()
        self._seen[mark.id] = _Seen(mark if due else None, due, ended + _REST * (ended - began - _BRIEF_S))

    def _step(self, rollout_id: str) -> datetime | None:
        """Take a step; when to look again if nobody says anything, or None: at the next tick."""
        now = self._now()
        with read(self._database) as session:
            view = load_view(session, rollout_id, since=self._since)
            look = self._look(view, now)
            watched = idle_part(view) if view.state is RolloutState.COMPLETED else view
            telemetry = self._evidence.telemetry(session, watched, now) if look else None
        transition = _step(view, telemetry, now)
        if look is not None:
            self._judged[rollout_id] = look
        if transition.empty:
            return next_look(view, now)
        self._parts[rollout_id] = PartWriter(view, transition, self.orders, actor=_ACTOR, now=now)
        if not self._go_on(rollout_id):
            self._judged.pop(rollout_id, None)
        elif transition.action:
            _LOG.info(
                "%s rollout=%s version=%s why=%s", transition.action, rollout_id, view.version, transition.sentence
            )
        return None

    def _go_on(self, rollout_id: str) -> bool:
        """Write some parts; False when somebody decided otherwise meanwhile. The other rollouts have their turn before the next ones."""
        writer = self._parts.pop(rollout_id)
        going = writer.write(self._database, _PARTS_A_TURN)
        if writer.left:
            self._parts[rollout_id] = writer
        self._wake.set()
        return going

    def _forget(self, keep: list[str]) -> None:
        """Drop what is known of rollouts that are over."""
        self._evidence.forget(keep)
        for known in (self._seen, self._judged, self._parts):
            for rollout_id in set(known) - set(keep):
                del known[rollout_id]

    def _look(self, view: RolloutView, now: datetime) -> tuple[int, int, bool, bool] | None:
        """A mark for this look at the telemetry, or None when there is nothing new to see since the last one."""
        if view.state is RolloutState.COMPLETED:
            mark = (view.wave, complete_until(view, now), False, False)
            return None if self._judged.get(view.id) == mark else mark
        if view.state not in (RolloutState.RUNNING, RolloutState.PAUSED):
            return None
        if not any(device.swapped_at for device in view.members(view.wave)) and not soak_over(view, now):
            return None
        approved = bool(view.waves[view.wave].approved_by)
        mark = (view.wave, complete_until(view, now), soak_over(view, now), approved)
        return None if self._judged.get(view.id) == mark else mark

    def _housekeeping(self) -> None:
        if time.monotonic() < self._due_housekeeping:
            return
        self._due_housekeeping = time.monotonic() + _HOUSEKEEPING_S
        now = self._now()
        self._tuf_repo.resign_online(now)
        renewed, again = self._renew(now), self._resend(now)
        if renewed or again:
            _LOG.info("engine.orders renewed=%d sent_again=%d", renewed, again)
            self._wake.set()

    def _renew(self, now: datetime) -> int:
        total = 0
        for _ in range(_TURNS):
            with write(self._database) as session, self.orders.batch(session, now) as batch:
                renewed = batch.renew(PART)
            total += renewed
            if renewed < PART:
                break
        return total

    def _resend(self, now: datetime) -> int:
        total, last = 0, ""
        for _ in range(_TURNS):
            with write(self._database) as session, self.orders.batch(session, now) as batch:
                again, last = batch.resend(_RESEND, after=last, limit=PART)
            total += again
            if not last:
                break
        return total

    def _run_hooks(self) -> None:
        if time.monotonic() < self._due_hooks:
            return
        self._due_hooks = time.monotonic() + _HOOK_S
        now = self._now()
        with write(self._database) as session:
            _drop_sent(session, now)
        for hook in self._hooks:
            hook(now)

    def _tick_loop(self) -> None:
        while not self._stop.is_set():
            more = self._guarded("engine.tick_failed", self.tick)
            self._stop.wait(0 if more else self._tick_s)

    def _send_loop(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            sent = self._guarded("engine.send_failed", self.send)
            if not sent:
                self._wake.wait(self._tick_s)

    def _guarded(self, event: str, work: Callable[[], int | None]) -> int:
        """The tick boundary: whatever goes wrong in one piece of work is logged and counted; the next tick tries again."""
        try:
            return work() or 0
        except Exception:
            self.errors += 1
            _LOG.exception("%s errors=%d", event, self.errors)
            return 0


def _step(view: RolloutView, telemetry: Telemetry | None, now: datetime) -> Transition:
    return step_after(view, telemetry, now) if view.state is RolloutState.COMPLETED else step(view, telemetry, now)


def _drop_sent(session: Session, now: datetime) -> None:
    session.exec(delete(Outbox).where(col(Outbox.sent_at) < now - _KEEP_SENT))
