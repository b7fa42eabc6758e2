"""Probation: a bad version fails soon, a good one almost never does by chance."""

import random

import pytest

from wavegate_agent.core.live_stats import LiveStats
from wavegate_agent.core.probation import MIN_BASELINE, OwnCounts, Word, judge, judge_with_own, may_ask_itself
from wavegate_shared.assignment import Probation
from wavegate_shared.histogram import Histogram

RULE = Probation(seconds=60.0, requests=50, max_error_share=0.02, max_p99_ratio=3.0)


def latencies(*pairs: tuple[float, int]) -> Histogram:
    made = Histogram()
    for value, count in pairs:
        made.add(value, count)
    return made


BEFORE = latencies((5.0, 990), (8.0, 10))


def word(seconds: float, requests: int, errors: int = 0, slow: int = 0) -> Word:
    return judge(RULE, seconds, requests, errors, latencies((5.0, requests - slow), (60.0, slow)), BEFORE).word


@pytest.mark.parametrize(
    ("seconds", "requests", "expected"),
    [(0, 0, Word.WAIT), (61, 49, Word.WAIT), (59, 500, Word.WAIT), (60, 50, Word.PASS)],
)
def test_both_time_and_requests_are_needed(seconds: float, requests: int, expected: Word) -> None:
    assert word(seconds, requests) is expected


def test_a_version_that_only_fails_is_found_at_its_third_request() -> None:
    assert [word(1, n, errors=n) for n in (1, 2, 3)] == [Word.WAIT, Word.WAIT, Word.FAIL]


def test_one_accident_is_not_a_verdict() -> None:
    assert word(1, 10, errors=1) is Word.WAIT
    assert word(61, 100, errors=2) is Word.PASS


def test_above_the_limit_but_unsure_waits_on() -> None:
    assert word(61, 60, errors=3) is Word.WAIT


def test_slower_than_the_devices_own_past_fails() -> None:
    assert word(1, 200, slow=20) is Word.FAIL
    assert word(61, 200, slow=2) is Word.PASS


def test_without_a_past_nothing_is_too_slow() -> None:
    few = latencies((5.0, MIN_BASELINE - 1))
    assert judge(RULE, 61, 100, 0, latencies((500.0, 100)), few).word is Word.PASS
    assert judge(RULE, 61, 100, 0, latencies((500.0, 100)), Histogram()).word is Word.PASS


def test_no_demand_passes_at_once() -> None:
    assert judge(Probation(seconds=0, requests=0), 0.0, 0, 0, Histogram(), BEFORE).word is Word.PASS


def test_the_reason_has_the_figures() -> None:
    verdict = judge(RULE, 5, 100, 40, latencies((5.0, 100)), BEFORE)
    assert verdict.reason == "40 errors in 100 requests, allowed is 2.0%"


def test_an_equal_version_is_rarely_reverted_under_constant_looking() -> None:
    """The same latencies and a true error share of 1 % (half the limit), looked at after every request, 300 devices."""
    chance = random.Random(3)
    reverted = 0
    for _ in range(300):
        latency, errors = Histogram(), 0
        for n in range(1, 201):
            latency.add(5.0 if chance.random() < 0.99 else 9.0)
            errors += chance.random() < 0.01
            if judge(RULE, 1.0, n, errors, latency, BEFORE).word is Word.FAIL:
                reverted += 1
                break
    assert reverted <= 1


# --- the agent's own requests ---------------------------------------------------------------------------------------------


def proved(
    live: tuple[int, int], own: tuple[int, int], *, slow: int = 0, before: Histogram = BEFORE, seconds: float = 61
) -> Word:
    """The word after so many (requests, errors) of each kind; `slow` own ones took 60 ms."""
    counts = LiveStats(2, requests=live[0], errors=live[1], latency=latencies((5.0, live[0])))
    mine = OwnCounts(own[0], own[1], latencies((5.0, own[0] - slow), (60.0, slow)))
    return judge_with_own(RULE, seconds, counts, mine, before).word


@pytest.mark.parametrize(
    ("live", "own", "expected"),
    [
        ((0, 0), (0, 0), Word.WAIT),
        ((0, 0), (49, 0), Word.WAIT),
        ((0, 0), (50, 0), Word.PASS),
        ((12, 0), (38, 0), Word.PASS),
        ((50, 0), (0, 0), Word.PASS),
        ((0, 0), (3, 3), Word.FAIL),
        ((3, 3), (50, 0), Word.FAIL),  # live ones are judged first
        ((12, 1), (37, 0), Word.WAIT),
        ((12, 1), (38, 0), Word.PASS),  # one accident in fifty
        ((80, 4), (500, 0), Word.WAIT),  # own ones do not outvote four live errors
        ((0, 0), (50, 2), Word.WAIT),
        ((0, 0), (100, 2), Word.PASS),
    ],
)
def test_own_requests_take_the_place_of_missing_ones(
    live: tuple[int, int], own: tuple[int, int], expected: Word
) -> None:
    assert proved(live, own) is expected


def test_own_requests_need_the_time_too() -> None:
    assert proved((0, 0), (50, 0), seconds=59) is Word.WAIT


def test_own_requests_are_too_slow_only_beside_a_live_past() -> None:
    assert proved((0, 0), (50, 0), slow=20) is Word.FAIL
    assert proved((0, 0), (50, 0), slow=20, before=latencies((5.0, MIN_BASELINE - 1))) is Word.PASS


def test_own_requests_come_when_live_ones_were_waited_for() -> None:
    assert [may_ask_itself(Probation(idle_after=120.0), seconds) for seconds in (0, 119, 120)] == [False, False, True]
    assert not may_ask_itself(Probation(idle_after=None), 1e9)
