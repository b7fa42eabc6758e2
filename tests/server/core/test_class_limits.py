"""Warnings above the limits of a hardware class."""

from wavegate_server.core.class_limits import DEFAULT_LIMITS, ClassLimit, over_limit

LIMITS = {"pi4": ClassLimit(parameters=1_000_000, mflops=500), "*": ClassLimit(parameters=10_000_000)}


def test_a_model_above_both_limits_of_its_class_is_told_twice() -> None:
    assert over_limit(2_000_000, 10**9, LIMITS, "pi4") == [
        "2,000,000 parameters, above the limit of 1,000,000 for class pi4",
        "1,000 MFLOPs an inference, above the limit of 500 for class pi4",
    ]


def test_a_class_without_limits_takes_those_of_any() -> None:
    assert over_limit(2_000_000, 10**9, LIMITS, "jetson") == []
    assert "any class" in over_limit(20_000_000, 10**9, LIMITS, "jetson")[0]


def test_without_a_class_every_limit_counts() -> None:
    assert len(over_limit(20_000_000, 10**9, LIMITS)) == 3


def test_compute_that_could_not_be_counted_is_no_pass() -> None:
    assert "could not be counted" in over_limit(1, None, LIMITS, "pi4")[0]


def test_at_the_limit_is_within_it() -> None:
    assert over_limit(1_000_000, 500 * 10**6, LIMITS, "pi4") == []
    assert over_limit(1, 1, DEFAULT_LIMITS) == []
