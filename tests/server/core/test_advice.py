"""Advice belongs to codes that exist, and says one thing."""

from wavegate_server.core.advice import ADVICE
from wavegate_shared.errors import CODES


def test_every_advice_is_for_a_code_that_exists() -> None:
    assert set(ADVICE) <= set(CODES)


def test_every_code_an_operator_meets_has_advice() -> None:
    assert {code for code, known in CODES.items() if known.kind == "UsageError"} - set(ADVICE) == {"budget_not_met"}


def test_an_advice_is_one_short_line() -> None:
    assert [code for code, text in ADVICE.items() if "\n" in text or len(text) > 120] == []
