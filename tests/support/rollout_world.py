"""A rollout without a database: a view, transitions applied to it, devices that answer, a clock that is told the time."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from wavegate_server.core.gate.evidence import Live, MetricEvidence, MetricSpec, Shift, Telemetry
from wavegate_server.core.gate.policy import Policy
from wavegate_server.core.rollout.plan import DeviceView, RolloutView, Transition, WaveView
from wavegate_server.core.rollout.progress import after_report, after_restore_report, after_state
from wavegate_server.core.rollout.step import step
from wavegate_server.core.sentences import Sentence
from wavegate_shared.manifest import Slo
from wavegate_shared.metrics import Direction
from wavegate_shared.states import AssignmentState, DeviceState, Outcome, RolloutState, WaveState

START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
SPECS = (
    MetricSpec("accuracy", "live accuracy", "share", Direction.UP, 0.005),
    MetricSpec("p99", "requests slower than the old p99", "share", Direction.DOWN, 0.005),
    MetricSpec("errors", "failed requests", "share", Direction.DOWN, 0.005),
)


def quiet_policy(**changes: object) -> Policy:
    """Short times, decides alone."""
    values: dict[str, object] = {"soak_s": 60.0, "few_canaries": "wide", "deadline_s": 100.0, "grace_s": 10.0}
    return Policy(**{**values, **changes})  # type: ignore[arg-type]  # the test states the fields it means


def new_view(sizes: tuple[int, ...] = (1, 3), *, policy: Policy | None = None, previous: int = 1) -> RolloutView:
    """A scheduled rollout of version 2 over waves of these sizes."""
    names = [(wave, f"d{wave}-{number}") for wave, size in enumerate(sizes) for number in range(size)]
    return RolloutView(
        id="r-1",
        model="m",
        version=2,
        state=RolloutState.SCHEDULED,
        wave=0,
        policy=policy or quiet_policy(),
        waves=tuple(WaveView(n, f"wave {n + 1}", WaveState.PENDING, size) for n, size in enumerate(sizes)),
        devices=tuple(
            DeviceView(
                name,
                wave,
                AssignmentState.SCHEDULED,
                previous_version=previous,
                runs=previous,
                ordered=previous,
                back=previous,
                last_seen=START,
            )
            for wave, name in names
        ),
        since=START - timedelta(days=1),
        slo=Slo(),
    )


def telemetry(view: RolloutView, loss: float = 0.0) -> Telemetry:
    """Evidence in which every updated device of the current wave is worse by `loss` in accuracy."""
    updated = [device for device in view.members(view.wave) if device.swapped_at is not None]
    metrics = [
        MetricEvidence(
            spec=spec,
            measured=bool(updated),
            controls=5,
            baseline=[0.001, -0.001] * 48,
            blocks=[loss if spec.name == "accuracy" else 0.0] * 12 if updated else [],
            floor=0.0,
            shifts=[Shift(device.device, 0.979, 0.979 - loss, 100) for device in updated],
        )
        for spec in SPECS
    ]
    return Telemetry(updated=len(updated), metrics=metrics, live=Live())


@dataclass
class World:
    """The rollout and what happened to it. `published` and `restored` list devices in the order of their orders."""

    view: RolloutView
    now: datetime = START
    loss: float = 0.0
    published: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    passed: list[int] = field(default_factory=list)
    denied: bool = False

    def pass_time(self, seconds: float) -> None:
        """Later; every device was heard of."""
        self.now += timedelta(seconds=seconds)
        self.view = replace(self.view, devices=tuple(replace(d, last_seen=self.now) for d in self.view.devices))

    def step(self, *, evidence: bool = True) -> Transition:
        """One step of the engine, applied."""
        found = telemetry(self.view, self.loss) if evidence else None
        transition = step(self.view, found, self.now)
        self.apply(transition)
        return transition

    def apply(self, transition: Transition) -> None:
        """What the store does, in memory. Whatever is said has a code."""
        view = self.view
        said = [text for text in (transition.reason, transition.sentence) if text]
        assert [text for text in said if not isinstance(text, Sentence) or text.code == "text"] == []
        devices = {device.device: device for device in view.devices}
        for change in transition.devices:
            old = devices[change.device]
            assert isinstance(change.reason, Sentence) or change.reason in ("", old.reason)
            devices[change.device] = replace(
                old,
                state=change.state or old.state,
                reason=change.reason,
                code=change.code or old.code,
                deadline=change.deadline or old.deadline,
            )
        for name in transition.publish:
            deadline = self.now + timedelta(seconds=view.policy.deadline_s)
            devices[name] = replace(
                devices[name],
                state=AssignmentState.PUBLISHED,
                published_at=self.now,
                deadline=deadline,
                ordered=view.version,
            )
        for name in transition.restore:
            old = devices[name]
            devices[name] = replace(old, rollback_seq=2, ordered=old.back, current=True)
        self.published += transition.publish
        self.restored += transition.restore
        self.denied |= transition.deny
        self.view = replace(
            view,
            state=transition.state or view.state,
            reason=view.reason if transition.reason is None else transition.reason,
            wave=view.wave if transition.wave is None else transition.wave,
            waves=self._waves(transition),
            devices=tuple(devices.values()),
        )

    def device(self, name: str) -> DeviceView:
        """One device's row."""
        return next(device for device in self.view.devices if device.device == name)

    def says(self, name: str, state: DeviceState) -> None:
        """A state message from a device."""
        progress = after_state(self.device(name).state, state)
        self._move(name, progress.state, progress.accepted, progress.swapped)

    def reports(self, name: str, outcome: Outcome, code: str | None = None) -> None:
        """A signed report from a device, about its newest order."""
        device = self.device(name)
        after = after_restore_report if device.rollback_seq else after_report
        progress = after(device.state, outcome)
        self._move(name, progress.state, progress.accepted, progress.swapped, code)
        if outcome is Outcome.PROVEN:
            self.view = replace(
                self.view,
                devices=tuple(replace(d, runs=d.ordered) if d.device == name else d for d in self.view.devices),
            )

    def everyone_reports(self, outcome: Outcome) -> None:
        """All devices at work come to the same end."""
        for device in self.view.devices:
            if device.state in (AssignmentState.PUBLISHED, AssignmentState.ACCEPTED, AssignmentState.SWAPPED):
                self.reports(device.device, outcome)

    def _move(
        self, name: str, state: AssignmentState | None, accepted: bool, swapped: bool, code: str | None = None
    ) -> None:
        old = self.device(name)
        new = replace(
            old,
            state=state or old.state,
            accepted_at=old.accepted_at or (self.now if accepted else None),
            swapped_at=old.swapped_at or (self.now if swapped else None),
            code=code or old.code,
        )
        self.view = replace(
            self.view, devices=tuple(new if device.device == name else device for device in self.view.devices)
        )

    def _waves(self, transition: Transition) -> tuple[WaveView, ...]:
        waves = list(self.view.waves)
        for change in transition.waves:
            old = waves[change.number]
            state = change.state or old.state
            waves[change.number] = replace(
                old,
                state=state,
                approved_by=change.approved_by or old.approved_by,
                started_at=self.now if change.state is WaveState.RUNNING else old.started_at,
                soak_started_at=self.now if change.state is WaveState.SOAKING else old.soak_started_at,
            )
            if change.state is WaveState.PASSED:
                self.passed.append(change.number)
        return tuple(waves)


def run_to_end(world: World, answer: Callable[[World, str], None], *, rounds: int = 200) -> World:
    """Let devices answer and the engine step until nothing changes any more."""
    for _ in range(rounds):
        world.step()
        for device in world.view.devices:
            if world.view.state is RolloutState.ROLLING_BACK and device.rollback_seq:
                world.reports(device.device, Outcome.PROVEN)
            elif device.state in (AssignmentState.PUBLISHED, AssignmentState.ACCEPTED, AssignmentState.SWAPPED):
                answer(world, device.device)
        world.pass_time(30)
        if world.view.state in (RolloutState.COMPLETED, RolloutState.ROLLED_BACK, RolloutState.CANCELLED):
            break
    return world
