"""Stored sentences in the reader's language: the one place where they are translated.

A sentence is stored as its English text and as a code with parameters (`core.sentences`). English readers get the text. For every
other language there is a catalogue with the codes of the English one (`messages/<language>.sentences.json`). A row without a code,
or with one that this release cannot say, shows its English text, and is marked as English.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from wavegate_server.core.sentences import Sentence, render, stored_text

__all__ = ["Label", "Speaker", "Spoken", "sentence_catalogue"]

_MESSAGES = Path(__file__).parent / "messages"
_STORED = "en"
_LABELS = {
    "action": "action",
    "code": "code",
    "codes": "code",
    "job_state": "compression",
    "metric": "gate.metric",
    "rollout_state": "rollout",
    "state": "assignment",
}
"""Which names of the page's catalogue stand in a place."""

Label = Callable[[str, str], str]
"""`label(kind, value)`: the name of a state, code or the like in the reader's language."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """A text, and its language where that is not the reader's (empty: it is)."""

    text: str
    lang: str = ""


@cache
def sentence_catalogue(language: str) -> dict[str, dict[str, str]]:
    """The texts of a language: `sentences` by code, and the `words` between their parts."""
    texts: dict[str, dict[str, str]] = json.loads(
        (_MESSAGES / f"{language}.sentences.json").read_text(encoding="utf-8")
    )
    return texts


@dataclass(frozen=True, slots=True)
class Speaker:
    """Says stored sentences to readers of one language. `wave_name`: a wave's name in it."""

    language: str
    label: Label
    wave_name: Callable[[str], str]

    def say(self, text: str | None, said: Mapping[str, Any] | None) -> Spoken:
        """A sentence from its English text and its stored code."""
        if self.language == _STORED or not text:
            return Spoken(text or "")
        sentence = stored_text(text, said)  # without a code where that is of another text
        return self.sentence(sentence) if isinstance(sentence, Sentence) else Spoken(text, _STORED)

    def code(self, code: str, text: str) -> Spoken:
        """A sentence without parameters, from its English text and its code."""
        return self.say(text, {"code": code, "params": {}} if code else None)

    def sentence(self, sentence: Sentence) -> Spoken:
        """A sentence that knows its code."""
        if self.language == _STORED:
            return Spoken(str(sentence))
        try:
            return Spoken(render(sentence.code, sentence.params, self))
        except KeyError:
            return Spoken(str(sentence), _STORED)

    def template(self, code: str) -> str:
        """See `core.sentences.Vocabulary`."""
        return sentence_catalogue(self.language)["sentences"][code]

    def word(self, place: str, value: Any) -> str:
        """See `core.sentences.Vocabulary`."""
        words = sentence_catalogue(self.language)["words"]
        if place == "devices":
            return words["devices"].format(n=value)
        if place == "because":
            return words["because"].format(text=value) if value else ""
        if place == "wave":
            return self.wave_name(str(value))
        if place in ("how", "also"):
            return words.get(f"how.{value}", str(value))
        return self.label(_LABELS[place], str(value)) if place in _LABELS else str(value)

    def series(self, place: str, parts: Sequence[str]) -> str:
        """See `core.sentences.Vocabulary`."""
        words = sentence_catalogue(self.language)["words"]
        if place == "caveats":
            return words["caveats"].format(list=words["separator"].join(parts)) if parts else ""
        if place == "also":
            return "".join(words["also"].format(how=part) for part in parts)
        return (words["separator"] if place == "gaps" else words["comma"]).join(parts)
