"""What a job looks like on a terminal: a live table for people, nothing for programs, figures in the unit of their item."""

import pytest
from rich.console import Console

from wavegate_server.cli.compress.display import Display, print_result

RESULT = {
    "chosen": "x", "measured_on": "host only", "for": "pi4", "threads": 1, "samples": 9, "seconds": 3.0, "notes": [],
    "words": ["size=-10%: met", "drop=1pt: not enough samples to prove it: 9 show a loss of 0"],
    "verdicts": [
        {"item": "size=-10%", "met": True, "value": -0.653, "low": None, "high": None},
        {"item": "drop=1pt", "met": False, "value": 0.0, "low": -0.002, "high": 0.0406},
        {"item": "speed=2x", "met": True, "value": 2.5, "low": None, "high": None},
        {"item": "size<=5MB", "met": True, "value": 3_400_000.0, "low": None, "high": None},
    ],
    "candidates": [
        {"recipe": "original", "size_bytes": 9_000_000, "p50_ms": 5.0, "metric": 0.9, "drop_pt": 0.0, "drop_high_pt": 0.0,
         "agreement": 1.0, "offered": False, "reason": "", "pareto": True},
        {"recipe": "x", "size_bytes": 3_400_000, "p50_ms": 2.0, "metric": 0.9, "drop_pt": 0.0, "drop_high_pt": 4.06,
         "agreement": 1.0, "offered": True, "reason": "", "pareto": True},
        {"recipe": "crashed", "size_bytes": None, "offered": False, "reason": "it crashed", "pareto": False},
    ],
    "comparison": [{"name": "size", "unit": "MB", "before": 9.0, "after": 3.4}],
}  # fmt: skip


def test_a_result_is_told_in_the_units_of_its_budget(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(RESULT)
    told = " ".join(capsys.readouterr().out.split())
    for words in (
        "host only, not on a device of class pi4",
        "size=-10% met -65.3 %",
        "drop=1pt NOT met 0.00 pt -0.20 pt to 4.06 pt",
        "speed=2x met 2.50x",
        "size<=5MB met 3.40 MB",
        "2.50x 0.9000 0.00 pt 4.06 pt 1.0000 chosen",
        "it crashed",
        "not enough samples to prove it",
        "-62.2 %",
    ):
        assert words in told


def test_an_error_metric_is_told_in_its_own_unit(capsys: pytest.CaptureFixture[str]) -> None:
    print_result({**RESULT, "metric": {"name": "mean_absolute_error", "unit": "mm", "direction": "down"}})
    assert "0.0406 mm" in capsys.readouterr().out


def test_the_live_table_shows_each_candidate_with_its_stage_and_the_best() -> None:
    display = Display("compressing m", 600)
    display.tell("quantising", "a")
    display.tell("judging", "b", best="a", detail="step 3")
    display.used(75)
    console = Console(width=100, record=True, quiet=False, file=None)
    with console.capture() as shown:
        console.print(display._picture())
    text = shown.get()
    assert "compressing m  1:15 of 10:00  best so far: a" in text
    assert "quantising" in text
    assert "b: judging · step 3" in text


def test_no_terminal_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    with Display("compressing m", 600) as display:
        display.tell("quantising", "a")
        display.pause()
        display.go_on()
    assert not display.on
    assert capsys.readouterr() == ("", "")
