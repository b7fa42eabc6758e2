"""What is printed: tables that survive a pipe, figures with units, errors in two lines or as JSON."""

import json
from datetime import UTC, datetime

import pytest

from wavegate_server.cli.output import ago, figure, lines, megabytes, print_error, print_json, table
from wavegate_server.core.advice import Refused
from wavegate_shared.errors import UsageError

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def test_a_table_in_a_pipe_keeps_its_cells_whole_and_text_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table(["a", "b#"], [("x" * 90, 1), ("[red]", None)], empty="nothing")
    out = capsys.readouterr().out
    assert "x" * 90 in out
    assert "[red]" in out
    assert out.splitlines()[-2].rstrip().endswith("-")


def test_an_empty_table_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    table(["a"], [], empty="No devices yet.")
    assert capsys.readouterr().out == "No devices yet.\n"


def test_lines_print_brackets_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    lines("wrong on [7] of [bold]10[/bold]", "次")
    assert capsys.readouterr().out == "wrong on [7] of [bold]10[/bold]\n次\n"


def test_json_keeps_letters(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"site": "上海"})
    out = capsys.readouterr().out
    assert "上海" in out
    assert json.loads(out) == {"site": "上海"}


@pytest.mark.parametrize("as_json", [False, True])
def test_errors_of_both_kinds(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    refused = Refused({"detail": "no device [x]", "code": "not_found", "action": "Look again."})
    for error in (UsageError("not_found", "no device [x]"), refused):
        print_error(error, as_json=as_json)
        captured = capsys.readouterr()
        assert captured.out == ""
        if as_json:
            assert json.loads(captured.err)["code"] == "not_found"
        else:
            first, second = captured.err.splitlines()
            assert first == "error: no device [x] (not_found)"
            assert second.strip()


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (None, "never"),
        ("2026-03-01T11:59:55Z", "5 s ago"),
        ("2026-03-01T11:30:00+00:00", "30 min ago"),
        ("2026-03-01T09:00:00Z", "3 h ago"),
        ("2026-02-20T12:00:00Z", "9 d ago"),
        ("2026-03-01T12:00:30Z", "0 s ago"),
    ],
)
def test_ago(at: str | None, text: str) -> None:
    assert ago(at, NOW) == text


def test_figures() -> None:
    assert [figure(None), figure(0.9877, "share"), figure(12.345, "ms"), figure(12345.6, "ms"), figure(0.5)] == [
        "-", "98.77%", "12.3 ms", "12,346 ms", "0.5",
    ]  # fmt: skip
    assert megabytes(5_213_000) == "5.21 MB"
