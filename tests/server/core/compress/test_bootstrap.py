"""Intervals of set metrics: wider with fewer samples, never certain because nothing changed."""

import random

import pytest

from wavegate_server.core.compress.bootstrap import drop_from_draws, set_drop, unseen_share
from wavegate_shared.metrics import Direction, Metric

AUC, F1 = Metric("auc"), Metric("f1")


def draws(samples: int, count: int = 200) -> list[list[int]]:
    rng = random.Random(1)
    return [[rng.randrange(samples) for _ in range(samples)] for _ in range(count)]


def scored(samples: int, noise: float) -> tuple[list[list[float]], list[float]]:
    rng = random.Random(2)
    labels = [float(at % 2) for at in range(samples)]
    return [[0.0, label + rng.gauss(0, 0.4) + rng.gauss(0, noise)] for label in labels], labels


def test_the_interval_holds_the_drop_and_narrows_with_samples() -> None:
    widths = []
    for samples in (60, 400):
        before, labels = scored(samples, 0.0)
        after = [[0.0, out[1] + 0.3 * (-1) ** at] for at, out in enumerate(before)]
        drop = set_drop(AUC, before, after, labels, draws(samples))
        assert drop.low <= drop.value <= drop.high
        widths.append(drop.high - drop.low)
    assert widths[1] < widths[0]


def test_no_change_on_few_samples_proves_little() -> None:
    before, labels = scored(20, 0.0)
    drop = set_drop(F1, before, before, labels, draws(20))
    assert drop.value == 0.0
    assert drop.high >= unseen_share(20, 0.95) > 0.1


def test_draws_that_lack_a_class_are_left_out() -> None:
    drop = drop_from_draws(0.1, [float("nan"), 0.05, 0.15], 3, 1)
    assert (drop.low, drop.high) == (0.05, 0.15)
    assert drop_from_draws(0.1, [float("nan")], 3, 1).high == 1.0


def test_how_much_may_stay_unseen() -> None:
    assert unseen_share(59, 0.95) == pytest.approx(0.05, abs=0.001)
    assert unseen_share(299, 0.95) == pytest.approx(0.01, abs=0.001)


def test_a_root_mean_squared_error_has_an_interval() -> None:
    before, labels = scored(300, 0.0)
    before = [[out[1]] for out in before]
    after = [[out[0] + 0.2 * (-1) ** (at // 2)] for at, out in enumerate(before)]
    rmse = Metric("root_mean_squared_error", "mm", Direction.DOWN)
    drop = set_drop(rmse, before, after, labels, draws(300))
    assert 0.0 < drop.low < drop.value < drop.high < 0.2
    assert set_drop(rmse, before, before, labels, draws(300)).high == 0.0
