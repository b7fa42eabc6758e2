import pytest

from wavegate_server.core.rollout.progress import Progress, after_report, after_restore_report, after_state
from wavegate_shared.states import AssignmentState as A
from wavegate_shared.states import DeviceState as D
from wavegate_shared.states import Outcome


@pytest.mark.parametrize(
    ("current", "said", "state"),
    [
        (A.PUBLISHED, D.OFFERED, A.ACCEPTED),
        (A.PUBLISHED, D.FETCHING, A.ACCEPTED),
        (A.PUBLISHED, D.PROBATION, A.SWAPPED),
        (A.ACCEPTED, D.BENCH, None),
        (A.ACCEPTED, D.COMMITTED, A.SWAPPED),
        (A.TIMED_OUT, D.FETCHING, A.ACCEPTED),
        (A.DEFERRED, D.FETCHING, A.ACCEPTED),
        (A.SWAPPED, D.REVERTING, None),
        (A.PROVEN, D.FETCHING, None),
        (A.FAILED, D.PROBATION, None),
        (A.SKIPPED, D.PROBATION, None),
        (A.PUBLISHED, D.IDLE, None),
    ],
)
def test_states_move_a_row_forward_only(current: A, said: D, state: A | None) -> None:
    assert after_state(current, said).state is state


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Outcome.PROVEN, A.PROVEN),
        (Outcome.REFUSED, A.FAILED),
        (Outcome.REVERTED, A.FAILED),
        (Outcome.BROKEN, A.FAILED),
        (Outcome.DEFERRED, A.DEFERRED),
    ],
)
def test_only_a_report_ends_an_assignment(outcome: Outcome, state: A) -> None:
    assert after_report(A.SWAPPED, outcome).state is state


def test_a_report_implies_what_came_before() -> None:
    assert after_report(A.PUBLISHED, Outcome.PROVEN) == Progress(A.PROVEN, accepted=True, swapped=True, finished=True)


def test_a_refusal_is_no_swap() -> None:
    assert not after_report(A.ACCEPTED, Outcome.REFUSED).swapped


@pytest.mark.parametrize(
    ("current", "outcome", "state"),
    [
        (A.PROVEN, Outcome.PROVEN, A.ROLLED_BACK),
        (A.PROVEN, Outcome.DEFERRED, None),
        (A.PROVEN, Outcome.REFUSED, A.FAILED),
        (A.FAILED, Outcome.PROVEN, None),
        (A.SKIPPED, Outcome.PROVEN, None),
    ],
)
def test_reports_about_the_way_back(current: A, outcome: Outcome, state: A | None) -> None:
    assert after_restore_report(current, outcome).state is state
