"""A device without traffic proves a version by its own requests, and says what it waits for."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.agent_world import AgentWorld, RunningAgent
from wavegate_agent import cli
from wavegate_agent.adapters.device.status_socket import read_status
from wavegate_agent.control.idle_proof import DUTY, IdleProof
from wavegate_agent.control.live_traffic import Trial
from wavegate_agent.core.probation import OwnAnswer, Verdict, Word
from wavegate_shared.assignment import Probation
from wavegate_shared.histogram import Histogram
from wavegate_shared.states import DeviceState, Outcome
from wavegate_shared.wire import StateEvent, Window

WAIT = Verdict(Word.WAIT, "not yet")
GOOD = OwnAnswer(failed=False, latency_ms=5.0)
IDLE = Probation(seconds=0.0, requests=3, idle_after=0.0)


@dataclass
class Clock:
    """Seconds that pass when a request is asked, and when the test says so."""

    seconds: float = 100.0
    took: float = 0.0
    answers: dict[int, OwnAnswer | None] = field(default_factory=dict)
    asked: list[tuple[int, float]] = field(default_factory=list)

    def ask(self, sample: int) -> OwnAnswer | None:
        self.asked.append((sample, self.seconds))
        self.seconds += self.took
        return self.answers.get(sample, GOOD)

    def proof(self) -> IdleProof:
        return IdleProof(self.ask, lambda: datetime(2026, 3, 1, 22, 12, 5, tzinfo=UTC), lambda: self.seconds)


def test_one_request_a_second_at_most() -> None:
    clock, trial = Clock(), Trial(2, Histogram())
    proof = clock.proof()
    for _ in range(10):
        proof.look(trial, IDLE, WAIT)
        clock.seconds += 0.5
    assert clock.asked == [(0, 100.0), (1, 101.0), (2, 102.0), (3, 103.0), (4, 104.0)]
    assert trial.own.requests == 5


def test_slow_requests_take_a_tenth_of_the_device_at_most() -> None:
    clock, trial = Clock(took=2.0), Trial(2, Histogram())
    proof = clock.proof()
    while len(clock.asked) < 3:
        proof.look(trial, IDLE, WAIT)
        clock.seconds += 0.5
    begun = [at for _, at in clock.asked]
    assert all(later - earlier >= clock.took / DUTY for earlier, later in pairwise(begun))


def test_nothing_is_asked_before_the_time_and_never_where_it_is_off() -> None:
    clock = Clock()
    for rule in (Probation(idle_after=1000.0), Probation(idle_after=None)):
        clock.proof().look(Trial(2, Histogram()), rule, WAIT)
    assert clock.asked == []


def test_what_is_waited_for_is_said_in_words() -> None:
    clock, trial = Clock(), Trial(2, Histogram())
    trial.counts.requests = 12
    said = []
    for rule in (Probation(idle_after=120.5), Probation(idle_after=None)):
        proof = clock.proof()
        proof.look(trial, rule, WAIT)
        said.append(proof.waits_for)
    assert said == [
        "waits for 50 live requests (12 so far); own requests from 22:14:05 UTC",
        "waits for 50 live requests (12 so far); own requests are off",
    ]


def test_it_is_said_after_ten_seconds_then_once_a_minute_and_only_when_the_count_changed() -> None:
    clock, trial = Clock(), Trial(2, Histogram())
    proof, rule = clock.proof(), Probation(idle_after=None)
    assert proof.look(trial, rule, WAIT) is None
    clock.seconds += 10
    assert proof.look(trial, rule, WAIT)
    clock.seconds += 61
    assert proof.look(trial, rule, WAIT) is None
    trial.counts.requests = 3
    assert proof.look(trial, rule, WAIT)
    trial.counts.requests = 4
    clock.seconds += 30
    assert proof.look(trial, rule, WAIT) is None


def test_a_request_that_said_nothing_counts_nowhere() -> None:
    clock, trial = Clock(answers={0: None}), Trial(2, Histogram())
    proof = clock.proof()
    proof.look(trial, IDLE, WAIT)
    assert trial.own.requests == 0
    assert proof.waits_for.endswith(", 1 said nothing")


# --- in the whole agent ---------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wavegate_agent.control.idle_proof.PAUSE_S", 0.0)
    monkeypatch.setattr("wavegate_agent.control.idle_proof.FIRST_S", 0.0)


@pytest.mark.usefixtures("quick")
def test_a_version_is_proven_without_any_traffic(running: RunningAgent, world: AgentWorld) -> None:
    report = running.install(2, probation=IDLE)
    assert (report.outcome, report.served, report.errors, report.self_requests) == (Outcome.PROVEN, 0, 0, 3)
    assert report.p99_ms is None
    assert sum(window.requests for window in world.said if isinstance(window, Window)) == 0


@pytest.mark.usefixtures("quick")
def test_live_requests_count_before_own_ones(running: RunningAgent, world: AgentWorld) -> None:
    running.host.during["own_request"] = lambda: running.host.serve(2, 2)
    report = running.install(2, probation=IDLE)
    assert (report.outcome, report.served, report.self_requests) == (Outcome.PROVEN, 2, 1)


@pytest.mark.usefixtures("quick")
def test_a_version_that_fails_its_own_requests_is_reverted(running: RunningAgent, world: AgentWorld) -> None:
    running.host.own_answer = lambda _: OwnAnswer(failed=True)
    report = running.install(2, probation=IDLE)
    assert (report.outcome, report.code, report.self_requests) == (Outcome.REVERTED, "probation_failed", 3)
    assert report.detail.startswith("own requests: 3 errors in 3 requests")
    assert running.host.live == 1


@pytest.mark.usefixtures("quick")
def test_without_own_requests_the_device_waits_and_says_so(
    running: RunningAgent, world: AgentWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seq = world.assign(2, probation=Probation(seconds=0.0, requests=3, idle_after=None))

    def said() -> list[StateEvent]:
        events = [m for m in world.said if isinstance(m, StateEvent) and m.assignment_seq == seq]
        return [event for event in events if event.live_requests is not None]

    event = world.wait(said, "what the device waits for")[0]
    words = "waits for 3 live requests (0 so far); own requests are off"
    assert (event.state, event.live_requests, event.detail) == (DeviceState.PROBATION, 0, words)
    slot = read_status(tmp_path / "agent.sock")["slots"]["pairs"]  # type: ignore[index]
    assert slot["detail"] == words
    assert cli.main(["status", "--state", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith(f" 2, probation; {words}")
    running.host.serve(2, 3)
    report = world.wait_report(seq)
    assert (report.outcome, report.served, report.self_requests) == (Outcome.PROVEN, 3, 0)
    assert not [call for call in running.host.calls if call.startswith("own_request")]


@pytest.mark.usefixtures("quick")
def test_a_restart_in_between_begins_the_proof_again(tmp_path: Path, world: AgentWorld) -> None:
    with RunningAgent(tmp_path, world) as running:
        running.install(1)
        running.host.own_answer = lambda _: None
        seq = world.assign(2, probation=IDLE)
        world.wait(lambda: "own_request 1" in running.host.calls, "own requests")
        host = running.host
    host.own_answer = lambda _: GOOD
    with RunningAgent(tmp_path, world, host):
        report = world.wait_report(seq)
    assert (report.outcome, report.self_requests) == (Outcome.PROVEN, 3)
