"""The machines of all slots at work: journal first, then act, then feed the answer back in.

One instance, one thread (the step thread); others only read `record`, which is replaced as a whole. This is the agent's one
boundary for unexpected errors: they are logged with their trace, counted, and become `agent_failed` of the state they
happened in, so that a fault of ours ends one assignment and not the service.
"""

import errno
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from wavegate_agent.adapters.disk.journal import Journal
from wavegate_agent.control.messages import Messages
from wavegate_agent.control.slot_work import Interrupted, SlotWork
from wavegate_agent.core.journal_format import Record, applied
from wavegate_agent.core.machine import TABLE, step
from wavegate_agent.core.machine_types import (
    ActiveLost,
    Done,
    Event,
    Failed,
    Offer,
    Restarted,
    SendReport,
    Slot,
    Tick,
    Work,
)
from wavegate_shared.assignment import Assignment
from wavegate_shared.errors import DeviceError, WavegateError
from wavegate_shared.states import DeviceState

__all__ = ["Machines"]

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Machines:
    """Walks the machines.

    Args:
        device: id, for the log.
        journal: where every step is written before it is acted on.
        record: what the journal held, with this boot's number.
        messages: where reports and states go.
        now: the time messages carry.
        said: called after something was put into the outbox, and with True when the inventory changed.
        beat: called at each step.
        stopping: while true, failures say nothing: workers are being ended around the step.
    """

    def __init__(
        self,
        device: str,
        journal: Journal,
        record: Record,
        *,
        messages: Messages,
        now: Callable[[], datetime],
        said: Callable[[bool], None],
        beat: Callable[[], None],
        stopping: Callable[[], bool],
    ) -> None:
        self._device, self._journal = device, journal
        self._found_clean, self.record = record.clean, replace(record, clean=False)
        self._stopping = stopping
        self._messages, self._now, self._said, self._beat = messages, now, said, beat
        self._slots: dict[str, Slot] = dict(record.slots)
        self._steps: dict[str, SlotWork] = {}
        self._again: dict[str, Work] = {}
        self.failures = 0

    @property
    def assignment_seqs(self) -> set[int]:
        """Numbers of the assignments that some slot works on or keeps waiting."""
        held = [assigned for slot in self.record.slots.values() for assigned in (slot.assigned, slot.pending)]
        return {assigned.file for assigned in held if assigned is not None}

    def attach(self, name: str, steps: SlotWork) -> None:
        """Let `steps` do the work of this model's machine."""
        self._steps[name] = steps
        self._slots.setdefault(name, Slot())
        self.record = replace(self.record, slots={**self.record.slots, name: self._slots[name]})

    def remember(self) -> None:
        """Make the record durable as it is (the boot number, before anything is said with it)."""
        self._journal.save(self.record)

    def leave(self) -> None:
        """The agent stops in order: what is found at the next start is not the trace of a crash."""
        self._journal.save(replace(self.record, clean=True))

    def serve(self) -> None:
        """At boot, before the network: let every slot's active version serve."""
        for name, steps in self._steps.items():
            slot = self._slots[name]
            leaving = (DeviceState.REVERTING, DeviceState.FALLBACK, DeviceState.BROKEN)
            if slot.active is None or slot.state in leaving:
                continue
            self._beat()
            try:
                steps.serve(slot.active)
            except (WavegateError, OSError) as error:
                code = error.code if isinstance(error, WavegateError) else "load_failed"
                _LOG.warning("active_lost device=%s slot=%s code=%s error=%s", self._device, name, code, error)
                self.feed(name, ActiveLost(code, str(error)))

    def resume(self) -> None:
        """At boot, with the network starting: take up what was going on."""
        for name in self._steps:
            self.feed(name, Restarted(clean=self._found_clean))

    def detach(self, name: str) -> None:
        """Forget a model that was taken away."""
        del self._steps[name], self._slots[name]
        self._again.pop(name, None)
        self.record = replace(self.record, slots=dict(self._slots))
        self.remember()

    @property
    def empty(self) -> list[str]:
        """Models of which nothing is left to remember."""
        return [name for name, slot in self._slots.items() if slot.empty and slot.assigned is not None]

    def accept(self, assignment: Assignment, floor: datetime, offers: dict[str, Offer]) -> None:
        """Feed a verified assignment to the machines of the models it names, which are all attached."""
        self.record = replace(
            self.record,
            last_seq=max(self.record.last_seq, assignment.seq),
            time_floor=max(self.record.time_floor, floor),
        )
        self.remember()
        for name, offer in sorted(offers.items(), key=lambda item: item[1].assigned.seq):
            self._renumber(name, offer)
            self.feed(name, replace(offer, wait=bool(self._other_update(name))))

    def tick(self, *, connected: bool = False) -> None:
        """Let time pass: retries that are due, work that was interrupted, probations."""
        again, self._again = self._again, {}
        for name, work in again.items():
            if type(work) is type(self._work_of(name)):
                for event in self._run(name, [work]):
                    self.feed(name, event)
        for name, steps in sorted(self._steps.items(), key=lambda item: self._turn_of(item[0])):
            slot = self._slots[name]
            if slot.state is DeviceState.PROBATION:
                answer = self._guarded(name, slot, lambda steps=steps, slot=slot: steps.look(slot))  # type: ignore[misc]
                if isinstance(answer, Done | Failed):
                    self.feed(name, answer)
            self.feed(name, Tick(connected=connected, free=not self._other_update(name)))

    def feed(self, name: str, event: Event) -> None:
        """One event and everything that follows from it."""
        events: deque[Event] = deque([event])
        while events:
            self._beat()
            events.extend(self._run(name, self._step(name, events.popleft())))

    def _other_update(self, name: str) -> str | None:
        """Another model that is being updated now: one update at a time, so that each is measured by itself."""
        return next((other for other, slot in self._slots.items() if other != name and slot.busy), None)

    def _turn_of(self, name: str) -> int:
        pending = self._slots[name].pending
        return pending.seq if pending is not None else 0

    def slot(self, name: str) -> Slot:
        """A model's slot as it is now; an empty one for a model that is not here."""
        return self._slots.get(name, Slot())

    @property
    def busy(self) -> bool:
        """Whether work waits to be taken up at once."""
        return bool(self._again)

    @property
    def due(self) -> float | None:
        """When the next retry is due, monotonic seconds."""
        return min((slot.due for slot in self._slots.values() if slot.due is not None), default=None)

    def _step(self, name: str, event: Event) -> list[Work]:
        """One step of a machine: remember it, then say what it says; returns the work to do."""
        before = self._slots[name]
        slot, commands = step(before, event, time.monotonic())
        self._slots[name] = slot
        self.record = applied(self.record, name, slot, commands)
        self._journal.save(self.record)
        if slot.state is not before.state or (slot.assigned != before.assigned and slot.busy):
            self._log(name, before, slot)
            self._messages.state(name, slot, self._now())
            self._said(slot.state is DeviceState.IDLE)
        elif isinstance(event, Failed) and slot.retries == 1:
            held = replace(slot, code=event.code, detail=event.detail)
            self._messages.state(name, held, self._now())
            self._said(False)
        self._say_waiting(name, before, slot)
        for command in commands:
            if isinstance(command, SendReport):
                self._report(name, slot, command)
        return [command for command in commands if isinstance(command, Work)]

    def _say_waiting(self, name: str, before: Slot, slot: Slot) -> None:
        """An update that waits for another model's says so when it begins to wait."""
        other = self._other_update(name)
        if slot.pending is None or slot.pending == before.pending or slot.busy or other is None:
            return
        detail = f"waits for the update of {other}"
        waiting = replace(slot, assigned=slot.pending, code="update_waits", detail=detail)
        self._messages.state(name, waiting, self._now())
        self._said(False)

    def _run(self, name: str, works: list[Work]) -> list[Event]:
        answers: list[Event] = []
        for work in works:
            slot = self._slots[name]
            answer = self._guarded(name, slot, lambda work=work, slot=slot: self._steps[name].do(work, slot))  # type: ignore[misc]
            if isinstance(answer, Interrupted):
                self._again[name] = work
            elif answer is not None:
                answers.append(answer)
        return answers

    def _guarded(
        self, name: str, slot: Slot, act: Callable[[], Done | Failed | Interrupted | None]
    ) -> Done | Failed | Interrupted | None:
        """Act; every failure becomes the machine's event."""
        answer = self.attempt(act)
        if not isinstance(answer, WavegateError):
            return answer
        if self._stopping():
            return None
        _LOG.info(
            "step_refused device=%s slot=%s state=%s code=%s detail=%s",
            self._device,
            name,
            slot.state,
            answer.code,
            answer.detail,
        )
        return Failed(slot.state, answer.code, answer.detail, spread=secrets.randbelow(1000) / 1000)

    def attempt(self, act: Callable[[], T]) -> T | WavegateError:
        """Act, and return the error instead of raising it. The agent's one catch-all: see the module's docstring."""
        try:
            return act()
        except WavegateError as error:
            return error
        except OSError as error:
            _LOG.warning("step_failed device=%s error=%s", self._device, error)
            return DeviceError("disk_full" if error.errno in _FULL else "agent_failed", str(error))
        except Exception as error:
            self.failures += 1
            _LOG.exception("step_crashed device=%s", self._device)
            return DeviceError("agent_failed", f"{type(error).__name__}: {error}")

    def _report(self, name: str, slot: Slot, said: SendReport) -> None:
        if self._messages.report(name, slot, said, self._steps[name].figures(slot), self._now()):
            seq = said.assigned.seq if said.assigned is not None else 0
            _LOG.info(
                "report device=%s slot=%s seq=%d outcome=%s code=%s", self._device, name, seq, said.outcome, said.code
            )
            self._said(False)

    def _renumber(self, name: str, offer: Offer) -> None:
        """The machine goes on with the same version under a newer number: its figures go along."""
        assigned = self._slots[name].assigned
        if assigned is not None and self._slots[name].busy and assigned.version == offer.assigned.version:
            self._steps[name].evidence.renumber(assigned.seq, offer.assigned.seq)

    def _work_of(self, name: str) -> Work | None:
        return TABLE[self._slots[name].state].work

    def _log(self, name: str, before: Slot, slot: Slot) -> None:
        version = slot.assigned.version if slot.assigned is not None else slot.active
        _LOG.info(
            "state device=%s slot=%s from=%s to=%s rollout=%s seq=%s version=%s code=%s",
            self._device,
            name,
            before.state,
            slot.state,
            slot.assigned.rollout if slot.assigned else None,
            slot.assigned.seq if slot.assigned else 0,
            version.version if version else 0,
            slot.code,
        )
