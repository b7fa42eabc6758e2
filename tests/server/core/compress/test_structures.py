"""Where the search for a structure starts and goes."""

from wavegate_server.core.compress.structures import Limits, Structure, first_to_try, next_to_try

LADDER = [
    Structure("transformer", "whole", parameters=0.6, work=1.0),
    Structure("transformer", "half", parameters=0.3, work=0.5),
    Structure("transformer", "third", parameters=0.15, work=0.17),
    Structure("transformer", "sixth", parameters=0.1, work=0.08),
]


def test_it_starts_at_the_lightest_that_may_be_small_and_fast_enough() -> None:
    assert first_to_try(LADDER, Limits(size=0.2, speed=None)) == 0
    assert first_to_try(LADDER, Limits(size=0.05, speed=None)) == 2
    assert first_to_try(LADDER, Limits(size=0.2, speed=6.0, int8_speed=2.4)) == 2
    assert first_to_try(LADDER, Limits(size=None, speed=None)) == 0


def test_out_of_reach_starts_at_the_heaviest() -> None:
    assert first_to_try(LADDER, Limits(size=0.001, speed=100.0)) == 3


def test_too_lossy_backs_off_and_too_large_goes_on() -> None:
    assert next_to_try(2, [2], len(LADDER), lossy=True) == 1
    assert next_to_try(2, [2], len(LADDER), lossy=False) == 3


def test_the_search_ends_between_too_lossy_and_too_large_and_at_the_ends() -> None:
    assert next_to_try(1, [2, 1], len(LADDER), lossy=False) is None
    assert next_to_try(0, [0], len(LADDER), lossy=True) is None
    assert next_to_try(3, [3], len(LADDER), lossy=False) is None
