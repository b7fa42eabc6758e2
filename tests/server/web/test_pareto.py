"""The Pareto picture: every measured candidate in both charts, at places that say what the figures say."""

import re
from typing import Any

from wavegate_server.web.job_result import JobResult, read_result
from wavegate_server.web.pareto import HEIGHT, WIDTH, Chart, numbered
from wavegate_server.web.pareto import charts as charts_of


def row(recipe: str, size: float, p50: float, drop: float = 0.0, high: float = 0.0, **more: Any) -> dict[str, Any]:
    figures = {"size_bytes": int(size * 1e6), "p50_ms": p50, "drop_pt": drop, "drop_high_pt": high}
    return {"recipe": recipe, **figures, "offered": True, "pareto": False, **more}


RESULT: dict[str, Any] = {
    "chosen": "small",
    "candidates": [
        row("original", 10, 4.0, offered=False),
        row("small", 2.5, 2.0, 0.2, 0.5, pareto=True),
        row("tiny", 1.0, 3.0, 5.0, 7.0, offered=False),
        row("slow", 2.6, 40.0, 0.1, 0.4),
        {"recipe": "crashed", "size_bytes": None, "p50_ms": None, "offered": False, "reason": "it crashed"},
    ],
}


def result(stored: dict[str, Any]) -> JobResult:
    read = read_result(stored)
    assert read is not None
    return read


def charts(stored: dict[str, Any], allowed: float | None) -> tuple[Chart, Chart] | None:
    return charts_of(result(stored), allowed)


def test_what_was_not_measured_has_no_number() -> None:
    assert [number for number, _ in numbered(result(RESULT).candidates)] == [1, 2, 3, 4, None]


def test_smaller_is_left_faster_is_lower_and_the_chosen_one_is_on_top() -> None:
    made = charts(RESULT, 0.01)
    assert made is not None
    points = {point.name: point for point in made[0].points}
    assert set(points) == {"original", "small", "tiny", "slow"}
    assert points["tiny"].x < points["small"].x < points["original"].x
    assert points["small"].y > points["tiny"].y > points["original"].y
    assert [point.kind for point in made[0].points] == ["missed", "good", "original", "chosen"]
    assert points["small"].front


def test_one_bad_try_does_not_press_the_others_together() -> None:
    made = charts(RESULT, 0.01)
    assert made is not None
    latency, loss = ({point.name: point for point in chart.points} for chart in made)
    assert latency["slow"].beyond
    assert loss["tiny"].beyond
    assert not latency["original"].beyond
    assert latency["original"].y < HEIGHT / 2 + 20  # still high up on its scale


def test_the_loss_has_whiskers_and_the_allowed_loss_a_line() -> None:
    made = charts(RESULT, 0.01)
    assert made is not None
    latency, loss = made
    small = next(point for point in loss.points if point.name == "small")
    assert small.low is not None
    assert small.high is not None
    assert small.high < small.low
    assert loss.limit is not None
    assert loss.limit < small.high
    assert latency.limit is None
    without = charts(RESULT, None)
    assert without is not None
    assert without[1].limit is None


def test_the_front_goes_from_the_top_to_the_right_past_what_keeps_the_budget() -> None:
    made = charts(RESULT, 0.01)
    assert made is not None
    small = next(point for point in made[0].points if point.name == "small")
    assert made[0].line == f"M{small.x:g} 14V{small.y:g}H386"


def test_where_nothing_meets_the_budget_the_front_is_of_all_there_is() -> None:
    missed = [{**one, "offered": False} for one in RESULT["candidates"]]
    made = charts({"chosen": None, "candidates": missed}, 0.01)
    assert made is not None
    tiny = next(point for point in made[0].points if point.name == "tiny")
    assert made[0].line.startswith(f"M{tiny.x:g} 14V{tiny.y:g}H")


def test_everything_lies_inside_and_no_number_covers_another() -> None:
    crowd = [row(f"r{n}", 2.5 + n / 100, 2.0 + n / 100, 0.1, 0.3) for n in range(6)]
    made = charts({"chosen": None, "candidates": [row("original", 10, 4.0), *crowd]}, 0.02)
    assert made is not None
    for chart in made:
        places = [(point.label_x, point.label_y) for point in chart.points]
        assert len(set(places)) == len(places)
        for point in chart.points:
            assert 0 < point.x < WIDTH
            assert 0 < point.y < HEIGHT
        assert 2 <= len(chart.x_ticks) <= 7
        assert all(re.fullmatch(r"−?\d+(\.\d+)?", tick.text) for tick in (*chart.x_ticks, *chart.y_ticks))


def test_nothing_to_compare_gives_no_picture() -> None:
    assert charts({"chosen": None, "candidates": RESULT["candidates"][:1]}, 0.01) is None
    assert charts({"chosen": None, "candidates": []}, None) is None


def test_equal_figures_and_zeros_do_not_break_the_scales() -> None:
    same = [row("original", 0.0, 0.0), row("x", 0.0, 0.0)]
    assert charts({"chosen": "x", "candidates": same}, 0.0) is not None
