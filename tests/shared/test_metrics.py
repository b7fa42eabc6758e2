"""Metrics: an error gates like an accuracy, and an output that is not finite is never good."""

import math

import pytest

from wavegate_shared.metrics import Direction, Metric, at_least_as_good, loss, score

ACCURACY = Metric("accuracy")
ERROR = Metric("mean_absolute_error", "mm", Direction.DOWN)


def test_scores_of_one_sample() -> None:
    assert score(ACCURACY, [0.1, 2.0], 1) == 1.0
    assert score(ACCURACY, [0.1, 2.0], 0) == 0.0
    assert score(ERROR, [3.5], 3.0) == pytest.approx(0.5)


@pytest.mark.parametrize("output", [[math.nan, 1.0], [math.inf, 0.0], []])
def test_an_output_that_is_not_finite_scores_worst(output: list[float]) -> None:
    assert score(ACCURACY, output, 0) == 0.0
    assert score(ERROR, output, 0) == math.inf


def test_loss_is_positive_when_it_got_worse_whatever_the_direction() -> None:
    assert loss(ACCURACY, 0.97, 0.95) == pytest.approx(0.02)
    assert loss(ERROR, 1.0, 1.5) == pytest.approx(0.5)


def test_a_limit_is_a_floor_or_a_ceiling() -> None:
    assert at_least_as_good(ACCURACY, 0.97, 0.97)
    assert not at_least_as_good(ACCURACY, 0.96, 0.97)
    assert at_least_as_good(ERROR, 0.9, 1.0)
    assert not at_least_as_good(ERROR, math.nan, 1.0)
