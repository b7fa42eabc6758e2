"""Paired statistics: the interval covers the truth as often as it says, also with no discordant pair at all."""

import random

import pytest

from wavegate_server.core.compress.paired import paired_drop
from wavegate_shared.metrics import Direction, Metric

ACCURACY = Metric("accuracy")


def test_no_flip_in_200_samples_still_leaves_room_for_a_drop() -> None:
    drop = paired_drop(ACCURACY, [1.0] * 200, [1.0] * 200)
    assert drop.value == 0.0
    assert 0.005 < drop.high < 0.015
    assert drop.discordant == 0


def test_gains_and_losses_balance_in_the_estimate_but_not_in_the_interval() -> None:
    before, after = [1.0, 0.0] * 100, [1.0, 0.0] * 90 + [0.0, 1.0] * 10
    drop = paired_drop(ACCURACY, before, after)
    assert drop.value == 0.0
    assert drop.discordant == 20
    assert drop.high > paired_drop(ACCURACY, before, before).high


@pytest.mark.parametrize("samples", [150, 300, 600])
def test_the_upper_bound_covers_the_true_drop_as_often_as_promised(samples: int) -> None:
    """On average over true drops: counts are whole numbers, so at any single one coverage swings around its level."""
    chance, covered, runs = random.Random(11), 0, 900
    for run in range(runs):
        true_drop = 0.005 + 0.035 * run / runs
        worse = sum(chance.random() < true_drop for _ in range(samples))
        better = sum(chance.random() < 0.01 for _ in range(samples - worse))
        before = [1.0] * worse + [0.0] * better + [1.0] * (samples - worse - better)
        after = [0.0] * worse + [1.0] * better + [1.0] * (samples - worse - better)
        covered += paired_drop(ACCURACY, before, after).high >= true_drop - 0.01 * (1 - true_drop)
    assert covered / runs >= 0.94


def test_an_error_that_grew_is_a_positive_drop() -> None:
    drop = paired_drop(Metric("mean_absolute_error", "mm", Direction.DOWN), [1.0, 2.0, 3.0], [1.5, 2.5, 3.6])
    assert drop.value == pytest.approx(0.5333, abs=1e-3)
    assert drop.low < drop.value < drop.high


@pytest.mark.parametrize(("before", "after"), [([], []), ([1.0], [1.0, 0.0])])
def test_unequal_or_empty_scores_are_refused(before: list[float], after: list[float]) -> None:
    with pytest.raises(ValueError, match="length"):
        paired_drop(ACCURACY, before, after)


def test_equal_shares_on_few_samples_are_not_certain() -> None:
    same = [0.5] * 20
    assert paired_drop(Metric("detection_agreement"), same, same).high == pytest.approx(1 - 0.05 ** (1 / 20))
