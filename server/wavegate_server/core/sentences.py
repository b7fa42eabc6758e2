"""Sentences that the server says about rollouts, devices and jobs: a code with parameters, and its English text.

How to think of this: a decision is made once, and read in many places. The command line and the log want English, a page wants the
reader's language, a program wants the code. So whoever decides makes a `Sentence`: it is a string, its English text, and it carries
the code and the parameters that the text was made from. Both are stored. A page looks the code up in its own catalogue (`web`), which
has the same codes and the same places; a row without a code, of an older release, shows its English text.

A place's name says what stands there, and so how a language writes it: `devices` is a number of devices ("1 device"), `metric` a
metric's name, `wave` a wave's; lists and other sentences are parameters too. Not here: who says what (`gate`, `rollout`, ...).
"""

from collections.abc import Mapping, Sequence
from string import Formatter
from types import MappingProxyType
from typing import Any, Protocol

from wavegate_server.core.english import ENGLISH

__all__ = [
    "LISTS",
    "English",
    "Sentence",
    "Vocabulary",
    "metric_label",
    "places",
    "render",
    "said_of",
    "sentence_from",
    "stored_text",
]

LISTS = frozenset({"also", "caveats", "codes", "gaps", "names", "rest"})
"""Places that hold a list."""
_TEXT = "text"
"""The code of a sentence that is nothing but its text: an older release's, or a person's own words."""


class Vocabulary(Protocol):
    """How one language writes the parameters of its sentences."""

    def template(self, code: str) -> str:
        """The sentence with its places. Raises KeyError for a code it does not know."""

    def word(self, place: str, value: Any) -> str:
        """A single value, by the name of its place."""

    def series(self, place: str, parts: Sequence[str]) -> str:
        """A list, its parts written already, by the name of its place."""


class Sentence(str):
    """An English text that knows the code and the parameters it was made from; immutable, and equal to its text.

    Attributes:
        code: its key in every language's catalogue.
        params: what stands in its places; texts, numbers, sentences, or lists of texts or sentences.
    """

    __slots__ = ("code", "params")

    code: str
    params: Mapping[str, Any]

    def __new__(cls, code: str, /, **params: Any) -> "Sentence":
        """Make the sentence. Raises KeyError for a code without a text, or a place without a parameter."""
        made = super().__new__(cls, render(code, params, English()))
        object.__setattr__(made, "code", code)
        object.__setattr__(made, "params", MappingProxyType(dict(params)))
        return made

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse any change."""
        raise AttributeError(f"a sentence is immutable: {name}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle by code and parameters."""
        return sentence_from, (self.as_json(),)

    @classmethod
    def plain(cls, text: str) -> "Sentence":
        """A text without a code, as it is in every language."""
        return text if isinstance(text, Sentence) else cls(_TEXT, text=text)

    def as_json(self) -> dict[str, Any]:
        """Code and parameters as JSON values; `sentence_from(s.as_json()) == s`."""
        return {"code": self.code, "params": {name: _json(value) for name, value in self.params.items()}}


class English:
    """The vocabulary of the stored texts."""

    def template(self, code: str) -> str:
        """From `ENGLISH`."""
        return ENGLISH[code]

    def word(self, place: str, value: Any) -> str:
        """Names as programs write them, counts with their noun."""
        if place == "devices":
            return f"{value} device" if value == 1 else f"{value} devices"
        if place == "metric":
            return metric_label(str(value))
        if place == "because":
            return f": {value}" if value else ""
        return str(value).replace("_", " ") if place == "state" else str(value)

    def series(self, place: str, parts: Sequence[str]) -> str:
        """Parts with their separators and brackets."""
        if place == "caveats":
            return f" ({'; '.join(parts)})" if parts else ""
        if place == "also":
            return "".join(f", also {part}" for part in parts)
        return ("; " if place == "gaps" else ", ").join(parts)


def metric_label(name: str) -> str:
    """A metric's name in English sentences."""
    fixed = {"p99": "requests slower than the old p99", "errors": "failed requests"}
    return fixed.get(name) or f"live {name.replace('_', ' ')}"


def render(code: str, params: Mapping[str, Any], vocabulary: Vocabulary) -> str:
    """The text of a sentence in a language. Raises KeyError when the language, or the parameters, lack something."""
    template = vocabulary.template(code)
    return template.format_map({place: _text(place, params[place], vocabulary) for place in places(template)})


def places(template: str) -> frozenset[str]:
    """The names of the places of a text."""
    return frozenset(name for _, name, _, _ in Formatter().parse(template) if name)


def said_of(text: str) -> dict[str, Any]:
    """What is stored beside a text: its code and parameters, or nothing for a text that has none."""
    return text.as_json() if isinstance(text, Sentence) else {}


def sentence_from(stored: Mapping[str, Any] | None) -> Sentence | None:
    """A stored sentence; None where there is none, or none that this release can say."""
    if not stored:
        return None
    try:
        params = {str(name): _param(value) for name, value in dict(stored["params"]).items()}
        return Sentence(str(stored["code"]), **params)
    except (KeyError, TypeError, ValueError):
        return None


def stored_text(text: str, said: Mapping[str, Any] | None) -> str:
    """A stored text with its code, where it has one that still says the same; else the text alone."""
    sentence = sentence_from(said)
    return sentence if sentence is not None and sentence == text else text


def _text(place: str, value: Any, vocabulary: Vocabulary) -> str:
    if place in LISTS:
        return vocabulary.series(place, [_single(place, part, vocabulary) for part in value])
    return _single(place, value, vocabulary)


def _single(place: str, value: Any, vocabulary: Vocabulary) -> str:
    said = isinstance(value, Sentence)
    return render(value.code, value.params, vocabulary) if said else vocabulary.word(place, value)


def _json(value: Any) -> Any:
    if isinstance(value, Sentence):
        return value.as_json()
    return [_json(part) for part in value] if isinstance(value, (list, tuple)) else value


def _param(value: Any) -> Any:
    if isinstance(value, Mapping):
        inner = sentence_from(value)
        if inner is None:
            raise ValueError(value)
        return inner
    return tuple(_param(part) for part in value) if isinstance(value, list) else value
