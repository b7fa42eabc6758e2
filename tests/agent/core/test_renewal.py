from datetime import UTC, datetime, timedelta
from itertools import pairwise

from wavegate_agent.core.renewal import Term, due

BEGINS = datetime(2026, 1, 1, tzinfo=UTC)
TERM = Term("ab", BEGINS, BEGINS + timedelta(days=90))


def test_a_certificate_is_renewed_from_two_thirds_of_its_life_on() -> None:
    for number in range(200):
        device = f"locker-{number}"
        assert not due(TERM, device, BEGINS + timedelta(days=59.9))
        assert due(TERM, device, BEGINS + timedelta(days=64.6))
        assert due(TERM, device, TERM.ends + timedelta(days=300))


def test_a_fleet_that_was_enrolled_together_does_not_ask_together() -> None:
    days = [60 + hour / 24 for hour in range(24 * 5)]
    asking = [sum(due(TERM, f"locker-{n}", BEGINS + timedelta(days=day)) for n in range(1000)) for day in days]
    steps = [later - earlier for earlier, later in pairwise(asking)]
    assert asking[-1] == 1000
    assert max(steps) < 30  # of 1000 in any hour


def test_each_device_keeps_its_own_time() -> None:
    at = BEGINS + timedelta(days=62)
    assert [due(TERM, f"d{n}", at) for n in range(50)] == [due(TERM, f"d{n}", at) for n in range(50)]
    assert {due(TERM, f"d{n}", at) for n in range(50)} == {True, False}
