"""The words of the machine: what a slot remembers, what can happen to it, and what it can ask for.

How to think of this: a slot is a small record of which versions lie on the disk (active, standby, spare), which assignment is in
hand, and which state it is in. Something happens (an `Event`): an assignment was offered, a piece of work is done or failed, the
agent was restarted. The machine answers with the next record and a list of things to do (`Command`s); it does nothing itself.

    event ──► step(slot, event, now) ──► slot', commands      the runner writes slot' to the journal, then does the commands;
                     ▲                        │               what they answer is the next event
                     └──────── event ◄────────┘

A power cut may fall between any two of these. So the record must say all by itself what was going on, and each row of the table in
`machine.py` says what to do when the slot is found in that state: begin the state's work again, or give the assignment up.

Values only; the rules are in `core/machine.py`. `Slot` is journalled as a whole (`core/journal_format.py`), so its fields
are part of a file format: new ones need a default.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

from wavegate_shared.assignment import Probation
from wavegate_shared.states import DeviceState, Outcome

__all__ = [
    "BEFORE_SWAP",
    "ActiveLost",
    "Arm",
    "AssignedVersion",
    "BenchCandidate",
    "Command",
    "Commit",
    "Discard",
    "Done",
    "Event",
    "Failed",
    "Fallback",
    "Fetch",
    "Forgive",
    "Load",
    "Offer",
    "Preflight",
    "Quarantine",
    "ReadManifest",
    "Remove",
    "Restarted",
    "Revert",
    "RunGolden",
    "SendReport",
    "Slot",
    "Swap",
    "Tick",
    "Verify",
    "Version",
    "Watch",
    "Work",
    "short",
]

BEFORE_SWAP = frozenset(
    {
        DeviceState.OFFERED,
        DeviceState.PREFLIGHT,
        DeviceState.FETCHING,
        DeviceState.VERIFYING,
        DeviceState.LOADING,
        DeviceState.GOLDEN,
        DeviceState.BENCH,
        DeviceState.READY,
        DeviceState.SWAPPING,
    }
)
"""States in which the active version is still the old one."""

DETAIL_BYTES = 88
"""The journal has a fixed size, so what it says of a failure is short; the whole text stands in the log."""

# --- values ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A version that lies on this device: `models/<sha256>/`, named by the digest of its manifest."""

    model: str
    version: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignedVersion:
    """What an accepted assignment says about one slot; see `SlotAssignment` and `Assignment` for the fields.

    Attributes:
        bench: the version is only to be measured; what to measure it beside stands in the envelope.
        remove: the model is to be taken away; `version` is then what is active, or a version 0.
        envelope: number of the assignment that brought this entry here, where it is not `seq` itself; 0: it is.
    """

    seq: int
    version: Version
    rollout: str | None = None
    allow_older: bool = False
    override: bool = False
    probation: Probation = field(default_factory=Probation)
    bench: bool = False
    remove: bool = False
    envelope: int = 0

    @property
    def file(self) -> int:
        """Number of the assignment whose envelope holds this entry."""
        return self.envelope or self.seq

    @property
    def target(self) -> tuple[Version, bool, bool]:
        """What it asks for, whatever its number: the same target is not begun again."""
        return self.version, self.bench, self.remove


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """All that one slot's machine remembers; journalled as a whole.

    Attributes:
        active: what serves (or would, if it could).
        standby: the version before; verified, ready for a revert.
        spare: the version before `standby`; kept only while an update runs.
        assigned: the assignment worked on, or the last one finished.
        pending: a newer assignment that waits for the current one to be put away.
        outcome, code, detail: how `assigned` ends or ended.
        attempts: restarts found in the current phase.
        moves: state changes since the assignment was taken.
        retries: network failures in a row.
        lost: nothing could be made to serve; cleared by the next thing that does.
        due: when to try again, in the runner's monotonic seconds; None when nothing is waited for.
    """

    state: DeviceState = DeviceState.IDLE
    active: Version | None = None
    standby: Version | None = None
    spare: Version | None = None
    assigned: AssignedVersion | None = None
    pending: AssignedVersion | None = None
    outcome: Outcome | None = None
    code: str | None = None
    detail: str = ""
    attempts: int = 0
    moves: int = 0
    retries: int = 0
    lost: bool = False
    due: float | None = None

    @property
    def kept(self) -> tuple[Version, ...]:
        """Everything that must stay on disk for this slot in this state, without repeats."""
        pointers = [self.active, self.standby, None if self.state is DeviceState.COMMITTED else self.spare]
        if self.assigned is not None and self.state in BEFORE_SWAP:
            pointers.append(self.assigned.version)
        if self.pending is not None:
            pointers.append(self.pending.version)
        return tuple(dict.fromkeys(version for version in pointers if version is not None))

    @property
    def benching(self) -> bool:
        """Whether the assignment in hand is to measure a version, never to run it."""
        return self.assigned is not None and self.assigned.bench

    @property
    def empty(self) -> bool:
        """Whether nothing is left to remember: the model was taken away, or never came."""
        over = self.state is DeviceState.IDLE and self.active is None and self.pending is None
        return over and (self.assigned is None or self.outcome is Outcome.REMOVED)

    @property
    def busy(self) -> bool:
        """Whether an assignment is being worked on."""
        return self.state not in (DeviceState.IDLE, DeviceState.BROKEN)


def short(detail: str) -> str:
    """`detail` cut for the journal: at most `DETAIL_BYTES` bytes there, in one line."""
    plain = "".join(letter if letter.isprintable() else " " for letter in detail[:DETAIL_BYTES])
    plain = plain.replace("\\", "/").replace('"', "'")  # what JSON would make longer
    return plain.encode()[:DETAIL_BYTES].decode(errors="ignore")


# --- events ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Offer:
    """A verified assignment names this slot.

    Attributes:
        quarantined: its digest is on the device's list.
        wait: another model is being updated; one update at a time.
    """

    assigned: AssignedVersion
    quarantined: bool = False
    wait: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """The work of `state` succeeded. `short`: take the row's shortcut. `version`: which one a fallback found."""

    state: DeviceState
    short: bool = False
    version: Version | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The work of `state` failed. `spread` in [0, 1) shortens the wait before a retry (the runner draws it)."""

    state: DeviceState
    code: str
    detail: str = ""
    spread: float = 0.0


@dataclass(frozen=True, slots=True)
class Restarted:
    """The agent started and found the slot like this in its journal. `clean`: it had been stopped in order."""

    clean: bool = False


@dataclass(frozen=True, slots=True)
class ActiveLost:
    """The active version cannot serve: it did not start, or it crashes in a loop."""

    code: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time went by.

    Attributes:
        connected: the network just came back, so a retry need not wait.
        free: no other model of the device is being updated, so what waits may begin.
    """

    connected: bool = False
    free: bool = True


Event: TypeAlias = Offer | Done | Failed | Restarted | ActiveLost | Tick

# --- commands -------------------------------------------------------------------------------------------------------


class Work:
    """Base of the commands that answer with `Done` or `Failed`; they carry nothing, the slot says what they are about.

    Plain classes, equal by type: fourteen dataclasses would be a tenth of the agent's import time.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class ReadManifest(Work):
    """Refresh the metadata, check that the version is listed, get and check its manifest."""

    __slots__ = ()


class Preflight(Work):
    """Check free space and memory, and reserve the space. Short: all files are already on disk."""

    __slots__ = ()


class Fetch(Work):
    """Get the missing chunks."""

    __slots__ = ()


class Verify(Work):
    """Check whole digests and move the version into place."""

    __slots__ = ()


class Load(Work):
    """Start a candidate worker."""

    __slots__ = ()


class RunGolden(Work):
    """Run the golden set in the candidate. Short: a rollback, so no bench."""

    __slots__ = ()


class BenchCandidate(Work):
    """Measure the candidate beside the active version. Short: that was all that was asked for."""

    __slots__ = ()


class Arm(Work):
    """Last look before the swap: the candidate still lives."""

    __slots__ = ()


class Swap(Work):
    """Hand sockets and connections to the candidate."""

    __slots__ = ()


class Watch(Work):
    """Judge the new version on live requests."""

    __slots__ = ()


class Commit(Work):
    """Let the old worker go and delete what nobody needs."""

    __slots__ = ()


class Discard(Work):
    """End the candidate and delete what was staged."""

    __slots__ = ()


class Revert(Work):
    """Make the standby version serve again."""

    __slots__ = ()


class Remove(Work):
    """End every worker of the model and forget its versions."""

    __slots__ = ()


class Fallback(Work):
    """Make any good version on this device serve."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class SendReport:
    """Put the signed report of `assigned` into the outbox."""

    assigned: AssignedVersion | None
    outcome: Outcome
    code: str | None
    detail: str


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Refuse this manifest digest from now on."""

    sha256: str


@dataclass(frozen=True, slots=True)
class Forgive:
    """A signed override: take this digest off the list."""

    sha256: str


Command: TypeAlias = Work | SendReport | Quarantine | Forgive
