"""The confidence sequence: how far a running mean can be from the truth, valid at every look.

A gate that looks after each block and stops at the first alarm needs bounds that hold at all times at once; a fixed-sample test
read repeatedly rolls back an equal version most of the time. The bound is the asymptotic normal-mixture one, on blocks of
paired differences, with two additions: the baseline's mean is itself measured (factor 1 + t / T), and so is its variance, which
matters when the baseline is short (Student's correction). It is asymptotic: tests/bench/gate.py checks it by simulation.

Source: Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas: Time-uniform central limit theory and asymptotic confidence sequences
(2021), one-sided form; Wallace: Bounds on normal approximations to Student's and the chi-square distributions (1959).
"""

import math

__all__ = ["TUNED_BLOCKS", "mixture", "radius", "variance"]

TUNED_BLOCKS = 12
"""The number of blocks after the swap at which the bound is tightest: 3 h of 15-min blocks."""


def variance(values: list[float]) -> float:
    """The unbiased sample variance; 0 for fewer than two values."""
    if len(values) < 2:
        return 0.0
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def mixture(alpha: float, blocks: int = TUNED_BLOCKS) -> float:
    """The mixture's variance r2 that makes the one-sided bound tightest at `blocks` blocks."""
    spread = -2.0 * math.log(2.0 * alpha)
    return (spread + math.log(spread + 1.0)) / blocks


def radius(block_variance: float, *, blocks: int, baseline_blocks: int, alpha: float) -> float:
    """Half-width of the one-sided bound around the mean of `blocks` differences; infinite when it cannot be known.

    Args:
        block_variance: variance of one block's difference, from the baseline.
        blocks: blocks after the swap, t >= 1.
        baseline_blocks: blocks before it, T; their mean was subtracted and their variance is `block_variance`.
        alpha: chance that the mean ever lies further off than the radius, 0 < alpha < 0.25.
    """
    if blocks < 1 or baseline_blocks < 3:
        return math.inf
    scaled = blocks * mixture(alpha)
    z2 = 2.0 * (scaled + 1.0) / scaled * math.log(1.0 + math.sqrt(scaled + 1.0) / (2.0 * alpha))
    freedom = baseline_blocks - 1
    if z2 / freedom > 50.0:
        return math.inf
    student = math.sqrt(freedom * math.expm1(z2 / freedom))
    return student * math.sqrt(block_variance / blocks * (1.0 + blocks / baseline_blocks))
