"""Coordinates of the small pictures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavegate_server.web.pictures import changes, donut, interval, sparkline, stacked

COUNTS = st.dictionaries(st.sampled_from("abcdefg"), st.integers(0, 500), min_size=1)


@given(COUNTS)
def test_a_donut_has_one_arc_per_count_and_never_overlaps(counts: dict[str, int]) -> None:
    arcs = donut(counts)
    assert [arc.name for arc in arcs] == [name for name, n in counts.items() if n]
    assert all(0 < arc.dash <= 100 for arc in arcs)
    assert [arc.offset for arc in arcs] == sorted((arc.offset for arc in arcs), reverse=True)


def test_a_single_kind_is_a_full_ring() -> None:
    assert donut({"serving": 3})[0].dash == 100
    assert donut({"serving": 0}) == ()


@given(COUNTS)
def test_a_stacked_bar_is_filled_to_the_end(counts: dict[str, int]) -> None:
    parts = stacked(counts)
    assert sum(part.width for part in parts) == pytest.approx(100 if parts else 0, abs=0.1)


def test_a_sparkline_breaks_where_nothing_was_measured() -> None:
    assert sparkline([1, 2, None, 3, 4]).count("M") == 2
    assert sparkline([None, 5, None]).endswith("h0.1")
    assert sparkline([None, None]) == sparkline([1]) == ""


@given(st.lists(st.none() | st.floats(0, 1e6), min_size=2, max_size=60))
def test_a_sparkline_stays_inside(values: list[float | None]) -> None:
    path = sparkline(values, width=96, height=24)
    numbers = [float(n) for n in path.replace("h0.1", "").replace("M", " ").replace("L", " ").split()]
    assert all(0 <= x <= 96.01 for x in numbers[::2])
    assert all(1.9 <= y <= 22.1 for y in numbers[1::2])


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(1e-4, 0.1))
def test_an_interval_keeps_its_order(mean: float, radius: float, margin: float) -> None:
    picture = interval(mean, radius, margin)
    assert picture.low <= picture.mean <= picture.high
    assert picture.zero == 50
    assert picture.zero < picture.margin <= 100


def test_a_change_is_drawn_from_the_middle_on_the_scale_of_its_table() -> None:
    bars = changes([-0.75, 0.013, None, 0.4])
    assert [bar and (bar.x, bar.width) for bar in bars] == [(12.5, 37.5), (50.0, 0.8), None, (50.0, 20.0)]
    large = changes([1.5, -0.75])
    assert [bar and (bar.x, bar.width) for bar in large] == [(50.0, 50.0), (25.0, 25.0)]


@given(st.lists(st.none() | st.floats(-1, 50), max_size=8))
def test_changes_stay_inside_and_keep_their_side(relative: list[float | None]) -> None:
    for value, bar in zip(relative, changes(relative), strict=True):
        assert (bar is None) == (value is None)
        if bar is not None and value is not None:
            assert 0 <= bar.x < bar.x + bar.width <= 100
            assert abs(value) < 0.02 or (bar.x + bar.width / 2 > 50) == (value > 0)
