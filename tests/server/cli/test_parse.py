"""What people type, and what it means in the API."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cli import Cli
from wavegate_server.cli.main import run
from wavegate_server.cli.parse import (
    parse_baseline,
    parse_devices,
    parse_duration,
    parse_labels,
    parse_margins,
    parse_waves,
)
from wavegate_server.core.gate.policy import parse_policy
from wavegate_shared.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("15m", 900),
        ("2s", 2),
        ("1h", 3600),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("2d", 172800),
        ("1.5h", 5400),
        ("3min", 180),
        (".5h", 1800),
        (" 90s ", 90),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "15", "m", "1x", "-1s", "1 h", "1h 30m", "1e3s", "h1"])
def test_a_duration_without_unit_or_with_a_strange_one_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"invalid duration .*: use 90s, 10m, 1h30m or 2d"):
        parse_duration(text)


def test_a_number_without_unit_has_one_only_where_the_option_names_it() -> None:
    assert parse_duration("10", bare="m") == 600
    assert parse_duration("1h30m", bare="m") == 5400


DURATIONS = [
    *(
        (("rollout", "create", "m", "1"), name)
        for name in ("--soak", "--block", "--probation", "--deadline", "--baseline")
    ),
    (("rollout", "watch", "r-1"), "--timeout"),
    (("rollout", "rollback", "r-1"), "--timeout"),
    (("compress", "m@1"), "--time"),
]


@pytest.mark.parametrize(("command", "option"), DURATIONS)
def test_every_option_that_takes_a_duration_has_one_grammar(command: tuple[str, ...], option: str, cli: Cli) -> None:
    assert "invalid duration 'soon': use 90s, 10m, 1h30m or 2d" in cli(*command, option, "soon", code=2).err
    assert "duration" not in run_quietly(cli, *command, option, "1h30m")


def run_quietly(cli: Cli, *arguments: str) -> str:
    """Standard error of a command that ends with whatever code."""
    cli.capture.readouterr()
    run(list(arguments))
    return cli.capture.readouterr().err


def test_a_baseline_is_blocks_or_as_many_as_cover_a_time() -> None:
    assert (parse_baseline("96", 900), parse_baseline("24h", 900), parse_baseline("1h", 1000)) == (96, 96, 4)


def test_waves_read_in_order_and_fit_the_policy() -> None:
    waves = parse_waves("canary=1,10%,half=50%,rest")
    assert waves == [
        {"name": "canary", "count": 1},
        {"percent": 10.0},
        {"name": "half", "percent": 50.0},
        {"name": "rest", "percent": 100.0},
    ]
    assert len(parse_policy({"waves": waves}).waves) == 4


@pytest.mark.parametrize("text", ["", "canary", "canary=", "1,,2", "x=1x", "-1", "%"])
def test_a_wave_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_waves(text)


def test_margins_in_points_per_cent_and_units() -> None:
    items = ["accuracy=0.5pt", "p99=2%", "mean_absolute_error=0.2"]
    assert parse_margins(items) == {"accuracy": 0.005, "p99": 0.02, "mean_absolute_error": 0.2}
    for wrong in ("accuracy", "=1", "accuracy=", "accuracy=-1", "accuracy=onept"):
        with pytest.raises(UsageError, match="no margin"):
            parse_margins([wrong])


def test_labels() -> None:
    assert parse_labels(["ring=early", "url=a=b"]) == {"ring": "early", "url": "a=b"}
    for wrong in ("ring", "=x", "ring="):
        with pytest.raises(UsageError, match="no label"):
            parse_labels([wrong])


@pytest.mark.parametrize(
    ("text", "selection"),
    [
        ("all", {"all": True}),
        ("kiosk-1", {"ids": ["kiosk-1"]}),
        ("kiosk-1, kiosk-2", {"ids": ["kiosk-1", "kiosk-2"]}),
        ("class=edge-a,site=北京", {"filter": {"class": "edge-a", "site": "北京"}}),
        ("label.ring=early,label.floor=2", {"filter": {"labels": {"ring": "early", "floor": "2"}}}),
        ("version=pairs:2", {"filter": {"model": "pairs", "version": 2}}),
    ],
)
def test_device_selections(text: str, selection: dict[str, object]) -> None:
    assert parse_devices(text) == selection


@pytest.mark.parametrize("text", ["", ",", "site=", "colour=red", "kiosk-1,site=berlin", "version=2", "label.=", "=x"])
def test_a_selection_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_devices(text)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused_but_never_fails(text: str) -> None:
    codes = []
    for parse in (
        parse_duration,
        parse_waves,
        parse_devices,
        lambda t: parse_margins([t]),
        lambda t: parse_labels([t]),
    ):
        try:
            parse(text)
        except UsageError as error:
            codes.append(error.code)
    assert set(codes) <= {"invalid"}
