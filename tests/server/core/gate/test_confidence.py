import math

import pytest

from wavegate_server.core.gate.confidence import TUNED_BLOCKS, mixture, radius, variance


def formula(v0: float, t: int, base: int, alpha: float) -> float:
    """The bound as published, without the correction for a short baseline."""
    r2 = mixture(alpha)
    v = v0 * (1 + t / base)
    return math.sqrt(2 * v * (t * r2 + 1) / (t * t * r2) * math.log(1 + math.sqrt(t * r2 + 1) / (2 * alpha)))


@pytest.mark.parametrize("blocks", [1, 4, 12, 96])
def test_with_a_long_baseline_it_is_the_published_bound(blocks: int) -> None:
    ours = radius(0.0004, blocks=blocks, baseline_blocks=100_000, alpha=0.01)

    assert ours == pytest.approx(formula(0.0004, blocks, 100_000, 0.01), rel=1e-3)


def test_a_day_of_baseline_widens_it_by_a_few_per_cent() -> None:
    ours = radius(0.0004, blocks=12, baseline_blocks=96, alpha=0.01)

    assert 1.0 < ours / formula(0.0004, 12, 96, 0.01) < 1.06


def test_a_short_baseline_widens_it_much() -> None:
    ours = radius(0.0004, blocks=5, baseline_blocks=8, alpha=0.01)

    assert ours > 1.4 * formula(0.0004, 5, 8, 0.01)


def test_it_shrinks_with_blocks_and_grows_with_certainty() -> None:
    bounds = [radius(1.0, blocks=t, baseline_blocks=96, alpha=0.01) for t in range(1, 97)]

    assert bounds == sorted(bounds, reverse=True)
    assert radius(1.0, blocks=5, baseline_blocks=96, alpha=0.001) > bounds[4]


def test_the_mixture_is_near_the_best_at_the_block_it_is_tuned_to() -> None:
    best = mixture(0.01)

    def bound(r2: float) -> float:
        scaled = TUNED_BLOCKS * r2
        return (scaled + 1) / scaled * math.log(1 + math.sqrt(scaled + 1) / 0.02)

    assert bound(best) < bound(best * 2)
    assert bound(best) < bound(best / 2)


@pytest.mark.parametrize(("blocks", "base"), [(0, 96), (5, 2), (5, 0)])
def test_without_data_the_radius_is_infinite(blocks: int, base: int) -> None:
    assert radius(1.0, blocks=blocks, baseline_blocks=base, alpha=0.01) == math.inf


def test_variance_is_the_unbiased_one() -> None:
    assert variance([1.0, 2.0, 3.0, 4.0]) == pytest.approx(5 / 3)
    assert variance([3.0]) == 0.0
