"""A sentence is its English text, and knows what it was made from."""

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavegate_server.core.english import ENGLISH
from wavegate_server.core.sentences import LISTS, Sentence, metric_label, places, sentence_from

REFUSED = Sentence("alarm.refused", device="kiosk-1", version=4, cause=Sentence("cause.code", code="golden_failed"))
BOTH = Sentence(
    "gate.no_alarm",
    devices=5,
    caveats=[Sentence("caveat.no_controls"), Sentence("caveat.few", devices=1, factor="10")],
)


def test_a_sentence_is_its_english_text() -> None:
    assert Sentence("gate.alarm", alarm=REFUSED) == "kiosk-1 refused version 4 (golden_failed): rolled back"
    assert Sentence("gate.watching", devices=1) == "watching 1 device: no alarm so far"
    assert f"{BOTH}." == (
        "no alarm on 5 devices through the whole soak (no untouched devices left, compared with their own past; "
        "only 1 device to judge by, margin x 10): promoted."
    )


@pytest.mark.parametrize("sentence", [REFUSED, BOTH, Sentence.plain("complaints from berlin {x}")])
def test_what_is_stored_is_the_sentence_again(sentence: Sentence) -> None:
    again = sentence_from(sentence.as_json())
    assert again is not None
    assert (again, again.code, again.as_json()) == (sentence, sentence.code, sentence.as_json())
    assert copy.deepcopy(sentence).as_json() == pickle.loads(pickle.dumps(sentence)).as_json() == sentence.as_json()


@pytest.mark.parametrize(
    "stored",
    [None, {}, {"code": "of a later release", "params": {}}, {"code": "gate.watching", "params": {}}, {"code": "text"},
     {"code": "gate.alarm", "params": {"alarm": {"code": "?"}}}, {"code": "gate.missing", "params": {"gaps": 3}}],
)  # fmt: skip
def test_what_cannot_be_said_is_none(stored: dict[str, Any] | None) -> None:
    assert sentence_from(stored) is None


def test_a_code_without_text_and_a_place_without_value_are_faults() -> None:
    with pytest.raises(KeyError):
        Sentence("gate.nothing")
    with pytest.raises(KeyError):
        Sentence("gate.watching")


def test_nothing_changes_a_sentence() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        REFUSED.code = "other"
    with pytest.raises(TypeError):
        REFUSED.params["device"] = "other"  # type: ignore[index]  # that is what is refused


def test_metrics_have_their_words() -> None:
    assert metric_label("mean_absolute_error") == "live mean absolute error"
    assert metric_label("p99") == "requests slower than the old p99"


@given(st.sampled_from(sorted(ENGLISH)), st.text(max_size=20))
def test_every_text_takes_any_value(code: str, value: str) -> None:
    params = {place: [value] if place in LISTS else value for place in places(ENGLISH[code])}
    sentence = Sentence(code, **params)
    again = sentence_from(sentence.as_json())
    assert again == sentence
