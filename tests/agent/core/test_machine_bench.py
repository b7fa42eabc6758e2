"""The machine with an assignment that only asks for a measurement: no way of it leads to the swap."""

from dataclasses import replace

import pytest

from tests.agent.core.test_machine import V1, V2, V3, assigned, at, run, works
from wavegate_agent.core.machine import step
from wavegate_agent.core.machine_types import (
    BEFORE_SWAP,
    AssignedVersion,
    Done,
    Failed,
    Offer,
    Quarantine,
    SendReport,
    Swap,
)
from wavegate_shared.states import DeviceState as S
from wavegate_shared.states import Outcome

BENCHING = AssignedVersion(seq=5, version=V2, bench=True, allow_older=True)


@pytest.mark.parametrize("short", [True, False])
def test_an_order_to_bench_ends_after_the_bench(short: bool) -> None:
    """Whatever the work answers and whatever else the assignment allows: no way leads to the swap."""
    ways = [S.OFFERED, S.PREFLIGHT, S.FETCHING, S.VERIFYING, S.LOADING, S.GOLDEN, S.BENCH]
    slot, said = run(at(S.OFFERED, assigned=BENCHING), *(Done(state, short=short) for state in ways))
    assert (slot.state, slot.outcome, slot.active) == (S.DISCARDING, Outcome.BENCHED, V1)
    assert SendReport(BENCHING, Outcome.BENCHED, None, "") in said
    assert Swap not in works(tuple(said))


@pytest.mark.parametrize("state", sorted(BEFORE_SWAP - {S.READY, S.SWAPPING}))
def test_a_failure_of_an_order_to_bench_quarantines_nothing(state: S) -> None:
    slot, commands = step(at(state, assigned=BENCHING), Failed(state, "golden_failed", "why"), 0.0)
    assert (slot.state, slot.outcome) == (S.DISCARDING, Outcome.REFUSED)
    assert Quarantine(V2.sha256) not in commands


@pytest.mark.parametrize("state", [*sorted(BEFORE_SWAP), S.PROBATION])
def test_an_order_to_bench_takes_no_updates_place(state: S) -> None:
    wanted = replace(BENCHING, seq=6, version=V3)
    slot, commands = step(at(state), Offer(wanted), 0.0)
    assert (slot.state, slot.pending, commands) == (state, wanted, ())


def test_the_same_version_to_run_is_another_order_than_to_bench() -> None:
    slot, _ = step(at(S.LOADING, assigned=BENCHING), Offer(assigned(V2, 6)), 0.0)
    assert (slot.state, slot.code) == (S.DISCARDING, "superseded")
