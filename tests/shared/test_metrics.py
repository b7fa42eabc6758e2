"""Metrics: an error gates like an accuracy, and an output that is not finite is never good."""

import math

import pytest

from wavegate_shared.metrics import Direction, Metric, at_least_as_good, evaluate, loss, score

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


def test_f1_is_of_the_whole_set() -> None:
    outputs = [[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]
    assert evaluate(Metric("f1"), outputs, [1, 0, 1, 0]) == pytest.approx(0.5)
    assert evaluate(Metric("f1"), [[0.9], [0.2]], [1, 0]) == 1.0
    assert evaluate(Metric("accuracy"), outputs, [1, 0, 1, 0]) == 0.5


def test_auc_counts_ties_half_and_does_not_ask_for_a_threshold() -> None:
    auc = Metric("auc")
    assert evaluate(auc, [[0.0, 9.0], [0.0, 8.0], [0.0, 7.0]], [1, 1, 0]) == 1.0
    assert evaluate(auc, [[0.5], [0.5], [0.5]], [1, 0, 0]) == 0.5
    assert evaluate(auc, [[0.1], [0.4], [0.35], [0.8]], [0, 0, 1, 1]) == 0.75
    assert math.isnan(evaluate(auc, [[0.1], [0.2]], [1, 1]))
    assert evaluate(auc, [[math.nan], [0.2]], [1, 0]) == 0.0


def test_sequences_by_exact_match_and_by_edits() -> None:
    exact, edits = Metric("exact_match"), Metric("character_error_rate", direction=Direction.DOWN)
    assert score(exact, [3.0, 5.0, -1.0], [3, 5]) == 1.0
    assert score(exact, [3.0, 6.0], [3, 5, -1]) == 0.0
    assert score(edits, [1, 2, 3, 4], [1, 3, 4]) == pytest.approx(1 / 3)
    assert score(edits, [], [1]) == math.inf
    assert score(edits, [-1.0], [1, 2]) == 1.0


def test_boxes_agree_when_class_and_place_do() -> None:
    agreement = Metric("detection_agreement")
    box, other = [0, 0, 10, 10, 0.9, 1], [50, 50, 60, 60, 0.8, 2]
    assert score(agreement, [*box, *other], [*other, *box]) == 1.0
    assert score(agreement, [1, 1, 10, 10, 0.9, 1], box) == 1.0
    assert score(agreement, [0, 0, 10, 10, 0.9, 2], box) == 0.0
    assert score(agreement, [0, 0, 10, 10, 0.1, 1], box) == 0.0
    assert score(agreement, box, [*box, *other]) == pytest.approx(2 / 3)


def test_an_error_over_several_numbers_is_their_mean() -> None:
    assert score(ERROR, [1.0, 4.0], [2.0, 2.0]) == pytest.approx(1.5)
    assert score(ERROR, [1.0], [2.0, 2.0]) == math.inf


def test_an_error_bound_counts_answers_that_are_near_enough() -> None:
    relative, absolute = Metric("error_bound", bound=0.1), Metric("error_bound", bound=0.5, relative=False)
    assert [score(relative, [value], 10.0) for value in (10.9, 9.1, 11.1, -10.0)] == [1.0, 1.0, 0.0, 0.0]
    assert [score(absolute, [value], 10.0) for value in (10.4, 9.4)] == [1.0, 0.0]
    assert score(relative, [0.0], 0.0) == 1.0
    assert score(relative, [1e-9], 0.0) == 0.0
    assert score(relative, [3.3, 4.0], [3.0, 4.0]) == 1.0
    assert score(relative, [3.3, 4.5], [3.0, 4.0]) == 0.0
    assert score(relative, [3.0], [3.0, 4.0]) == 0.0
    assert score(relative, [math.nan], 10.0) == 0.0
    assert evaluate(relative, [[10.5], [12.0]], [10.0, 10.0]) == 0.5


def test_a_root_mean_squared_error_is_of_the_whole_set() -> None:
    error = Metric("root_mean_squared_error", "mm", Direction.DOWN)
    assert evaluate(error, [[3.0], [4.0]], [0.0, 0.0]) == pytest.approx(math.sqrt(12.5))
    assert evaluate(error, [[3.0, 4.0]], [[0.0, 0.0]]) == pytest.approx(math.sqrt(12.5))
    assert evaluate(error, [[3.0], [math.nan]], [0.0, 0.0]) == math.inf


def test_a_label_that_is_not_a_number_asks_for_nothing() -> None:
    assert score(ERROR, [1.0, 5.0, 9.0], [2.0, math.nan, 8.0]) == pytest.approx(1.0)
    assert score(Metric("error_bound"), [1.0, 5.0], [1.0, math.nan]) == 1.0
