"""The machine in a world where anything happens: a device with a good version never ends without one."""

from hypothesis import given, settings
from hypothesis import strategies as st

from wavegate_agent.core.machine import (
    step,
)
from wavegate_agent.core.machine_types import (
    BEFORE_SWAP,
    ActiveLost,
    AssignedVersion,
    Done,
    Event,
    Failed,
    Fallback,
    Load,
    Offer,
    Restarted,
    Revert,
    RunGolden,
    SendReport,
    Slot,
    Swap,
    Tick,
    Version,
    Watch,
    Work,
)
from wavegate_shared.errors import CODES
from wavegate_shared.states import DeviceState as S


def assigned(version: Version, seq: int, *, allow_older: bool = False) -> AssignedVersion:
    return AssignedVersion(seq=seq, version=version, allow_older=allow_older)


VERSIONS = [Version(model="m", version=n, sha256=f"{n:064x}") for n in range(1, 6)]
FAILURES = sorted(code for code, entry in CODES.items() if entry.kind != "UsageError")


class World:
    """A device whose good versions run and whose bad ones do not; power cuts come at any time."""

    def __init__(self, good: frozenset[int]) -> None:
        self.good = good
        self.slot = Slot()
        self.serving: Version | None = None
        self.seq = 0
        self.reports: list[SendReport] = []

    def event(self, event: Event, *, fail: str | None = None, cut: bool = False) -> None:
        events = [event]
        while events:
            self.slot, commands = step(self.slot, events.pop(), 0.0)
            for command in commands:
                self.check()
                if isinstance(command, SendReport):
                    self.reports.append(command)
                elif isinstance(command, Work):
                    if cut:
                        self.reboot()
                        return
                    answer = self.work(command, fail)
                    fail = None
                    if answer is not None:
                        events.append(answer)
        self.check()

    def runs(self, version: Version | None) -> bool:
        return version is not None and version.version in self.good

    def work(self, command: Work, fail: str | None) -> Event | None:
        state = self.slot.state
        if fail is not None and state in BEFORE_SWAP:
            return Failed(state, fail)
        match command:
            case Load() | RunGolden() if self.slot.assigned and not self.runs(self.slot.assigned.version):
                return Failed(state, "load_failed")
            case Swap():
                self.serving = self.slot.assigned.version if self.slot.assigned else None
            case Watch():
                return None
            case Revert():
                if self.slot.standby is not None and not self.runs(self.slot.standby):
                    return Failed(state, "load_failed")
                self.serving = self.slot.standby
            case Fallback():
                for version in (self.slot.active, self.slot.standby, self.slot.spare):
                    if self.runs(version):
                        self.serving = version
                        return Done(state, version=version)
                return Failed(state, "load_failed")
            case _:
                pass
        return Done(state)

    def reboot(self) -> None:
        self.serving = None
        if self.slot.active is not None:
            if self.runs(self.slot.active):
                self.serving = self.slot.active
            else:
                self.event(ActiveLost("load_failed"))
        self.event(Restarted())

    def check(self) -> None:
        held = [v for v in (self.slot.active, self.slot.standby, self.slot.spare) if v is not None]
        assert len(set(held)) == len(held)
        if self.slot.active is None:
            assert self.slot.standby is None


@st.composite
def happenings(draw: st.DrawFn) -> list[tuple[str, int, str | None, bool]]:
    return draw(
        st.lists(
            st.tuples(
                st.sampled_from(["offer", "pass", "fail", "lost", "reboot", "tick"]),
                st.integers(0, 4),
                st.one_of(st.none(), st.sampled_from(FAILURES)),
                st.booleans(),
            ),
            max_size=40,
        )
    )


@settings(max_examples=400, deadline=None)
@given(st.frozensets(st.integers(2, 5)), happenings())
def test_a_device_with_a_good_version_never_ends_without_one(
    good: frozenset[int], happening: list[tuple[str, int, str | None, bool]]
) -> None:
    """V1 is good and proven; whatever is assigned, whatever fails, something good serves when the device is at rest."""
    world = World(good | {1})
    world.slot = Slot(active=VERSIONS[0])
    world.serving = VERSIONS[0]
    for what, number, fail, cut in happening:
        match what:
            case "offer":
                world.seq += 1
                world.event(Offer(assigned(VERSIONS[number], world.seq, allow_older=True)), fail=fail, cut=cut)
            case "pass" if world.slot.state is S.PROBATION:
                world.event(Done(S.PROBATION), cut=cut)
            case "fail" if world.slot.state is S.PROBATION:
                world.event(Failed(S.PROBATION, "probation_failed"), cut=cut)
            case "lost" if world.slot.active is not None and not world.runs(world.slot.active):
                world.event(ActiveLost("candidate_crashed"), cut=cut)
            case "reboot":
                world.reboot()
            case "tick":
                world.event(Tick(connected=True), fail=fail, cut=cut)
            case _:
                pass
        assert world.slot.active is not None
        assert world.runs(world.serving), world.slot
        assert world.serving == world.slot.active
        assert world.slot.state not in (S.BROKEN, S.FALLBACK)
    assert all(report.code is None or report.code in CODES for report in world.reports)
