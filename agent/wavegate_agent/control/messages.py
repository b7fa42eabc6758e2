"""The messages the agent says: hello, state events, signed reports, windows. They go into the outbox, hello straight out.

Not here: when to say them (`control/agent.py`), the wire form (`wavegate_shared.wire`).
"""

import secrets
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from wavegate_agent.adapters.device import facts
from wavegate_agent.adapters.disk.outbox import Kind, Outbox
from wavegate_agent.config import Identity
from wavegate_agent.control.figures import Figures
from wavegate_agent.core.journal_format import Record
from wavegate_agent.core.live_stats import LiveStats
from wavegate_agent.core.machine_types import AssignedVersion, SendReport, Slot
from wavegate_agent.core.windows import window_of
from wavegate_shared import __version__
from wavegate_shared.dsse import Signer, seal
from wavegate_shared.errors import WavegateError
from wavegate_shared.states import Outcome
from wavegate_shared.wire import REPORT_TYPE, Hello, Report, Running, SignedReport, StateEvent, encode

__all__ = ["Messages"]

_REPEAT_S = 60.0


class Messages:
    """Writes what the agent has to say into the outbox.

    Args:
        identity: this device.
        signer: with the device's key, for reports.
        outbox: where it goes.
    """

    def __init__(self, identity: Identity, signer: Signer, outbox: Outbox) -> None:
        self._identity, self._signer, self._outbox = identity, signer, outbox
        self._refused: dict[str, float] = {}
        self._run = secrets.token_hex(8)

    def sign_with(self, signer: Signer) -> None:
        """Another key from now on; what is in the outbox keeps its signature."""
        self._signer = signer

    def hello(self, record: Record, models: Path, *, clock: str, certificate: str, extra: Mapping[str, str]) -> Hello:
        """The inventory."""
        return Hello(
            boot=record.boot,
            agent_version=__version__,
            hardware_class=self._identity.hardware_class,
            slots={name: _running(name, slot) for name, slot in record.slots.items()},
            assignment_seq=record.last_seq,
            quarantined=list(record.quarantined),
            clock=clock,
            certificate=certificate,
            run=self._run,
            facts={**facts.hello_facts(models), **extra},
        )

    def state(
        self,
        name: str,
        slot: Slot,
        at: datetime,
        *,
        progress: float | None = None,
        detail: str = "",
        live_requests: int | None = None,
    ) -> None:
        """The slot entered a state, or is held up in it."""
        assigned = slot.assigned
        version = slot.active if assigned is None else assigned.version

        def make(boot: int, seq: int) -> bytes:
            return encode(
                StateEvent(
                    boot=boot,
                    seq=seq,
                    at=at,
                    assignment_seq=0 if assigned is None else assigned.seq,
                    slot=name,
                    model="" if version is None else version.model,
                    version=0 if version is None else version.version,
                    state=slot.state,
                    code=slot.code,
                    detail=(detail or slot.detail)[:500],
                    progress=progress,
                    live_requests=live_requests,
                )
            )

        self._outbox.put(Kind.STATE, make)

    def report(self, name: str, slot: Slot, said: SendReport, evidence: Figures, at: datetime) -> bool:
        """The end of an assignment, signed; False when exactly this was put into the outbox before."""
        assigned = said.assigned
        what = f"{assigned.seq if assigned else 0} {said.outcome} {said.code}"
        if self._outbox.said(name) == what:
            return False
        known = evidence if assigned is not None and evidence.seq == assigned.seq else Figures()
        self._put_report(name, slot, assigned, said, known, at)
        self._outbox.say(name, what)
        return True

    def refusal(self, name: str, slot: Slot, error: WavegateError, at: datetime, monotonic_s: float) -> bool:
        """Something was refused before it could become an assignment; the same code at most once a minute."""
        last = self._refused.get(error.code)
        if last is not None and monotonic_s - last < _REPEAT_S:
            return False
        self._refused[error.code] = monotonic_s
        outcome = Outcome.DEFERRED if error.retry else Outcome.REFUSED
        self._put_report(name, slot, None, SendReport(None, outcome, error.code, error.detail), Figures(), at)
        return True

    def window(self, name: str, stats: LiveStats, start: datetime, seconds: float) -> None:
        """What a version served in a span of time."""
        agent_rss, temperature = facts.agent_rss_mb(), facts.temperature_c()

        def make(boot: int, seq: int) -> bytes:
            window = window_of(stats, boot=boot, seq=seq, slot=name, start=start, seconds=seconds)
            return encode(msgspec.structs.replace(window, agent_rss_mb=agent_rss, temperature_c=temperature))

        self._outbox.put(Kind.WINDOW, make)

    def _put_report(
        self, name: str, slot: Slot, assigned: AssignedVersion | None, said: SendReport, known: Figures, at: datetime
    ) -> None:
        version = None if assigned is None else assigned.version
        model = version.model if version is not None else slot.active.model if slot.active is not None else ""

        def make(boot: int, seq: int) -> bytes:
            report = Report(
                device=self._identity.device,
                boot=boot,
                seq=seq,
                at=at,
                assignment_seq=0 if assigned is None else assigned.seq,
                rollout=None if assigned is None else assigned.rollout,
                slot=name,
                model=model,
                version=0 if version is None else version.version,
                sha256="" if version is None else version.sha256,
                outcome=said.outcome,
                code=said.code,
                detail=said.detail[:500],
                active_version=0 if slot.active is None or slot.lost else slot.active.version,
                golden=known.golden,
                bench=known.bench,
                served=known.served,
                errors=known.errors,
                probation_s=known.probation_s,
                p99_ms=known.p99_ms,
                bytes_fetched=known.bytes_fetched,
                swap_ms=known.swap_ms,
                self_requests=known.self_requests,
            )
            envelope = seal(report, REPORT_TYPE, self._signer)
            return encode(SignedReport(boot=boot, seq=seq, envelope=msgspec.Raw(envelope)))

        self._outbox.put(Kind.REPORT, make)


def _running(name: str, slot: Slot) -> Running:
    """What answers: from the swap on the new version, with the one before on standby."""
    active = slot.active
    return Running(
        model=name if active is None else active.model,
        version=0 if active is None or slot.lost else active.version,
        sha256="" if active is None else active.sha256,
        standby_version=0 if slot.standby is None else slot.standby.version,
        state=slot.state,
    )
