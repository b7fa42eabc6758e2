"""The histogram's promises: 2 % error, exact merge, a wire form that refuses nonsense."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavegate_shared.histogram import ALPHA, Histogram

latencies = st.lists(st.floats(min_value=0.001, max_value=3_000_000, allow_nan=False), min_size=1, max_size=200)


def filled(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(latencies, st.sampled_from([0.0, 0.5, 0.95, 0.99, 1.0]))
def test_a_quantile_is_within_two_percent_of_the_true_one(values: list[float], q: float) -> None:
    estimate = filled(values).quantile(q)
    truth = sorted(values)[int(q * (len(values) - 1))]
    assert estimate is not None
    assert abs(estimate - truth) <= ALPHA * truth * 1.0001


@given(latencies, latencies)
def test_merging_is_the_same_as_counting_together(left: list[float], right: list[float]) -> None:
    merged = Histogram.merged([filled(left), filled(right)])
    assert merged == filled(left + right)
    assert merged.count == len(left) + len(right)


@given(latencies)
def test_the_wire_form_gives_back_the_same_counts(values: list[float]) -> None:
    histogram = filled(values)
    assert Histogram.decode(histogram.encode()) == histogram


@given(st.binary(max_size=60))
def test_any_bytes_are_either_a_histogram_or_refused(data: bytes) -> None:
    try:
        histogram = Histogram.decode(data)
    except ValueError:
        return
    assert Histogram.decode(histogram.encode()) == histogram


def test_a_window_of_a_hundred_requests_is_small_on_the_wire() -> None:
    chance = random.Random(7)
    assert len(filled([chance.lognormvariate(1.5, 0.4) for _ in range(100)]).encode()) < 120


def test_nothing_counted_has_no_quantile() -> None:
    assert Histogram().quantile(0.99) is None
    assert Histogram().share_above(1.0) is None
    assert Histogram().mean() is None


def test_the_share_above_a_limit_counts_whole_buckets_beyond_it() -> None:
    histogram = filled([1.0] * 90 + [50.0] * 10)
    assert histogram.share_above(10.0) == pytest.approx(0.1)
    assert histogram.share_above(1.0) == pytest.approx(0.1)


def test_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        Histogram().add(float("nan"))


@pytest.mark.parametrize(
    "data", [b"", b"\x02\x00", b"\x01\x01\x05", b"\x01\x01\x05\x00", b"\x01\x00\x00", b"\x01\x02\x05\x01\x00\x01"]
)
def test_damaged_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="histogram"):
        Histogram.decode(data)
