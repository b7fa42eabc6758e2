"""The words of the dashboard in each language: two catalogues with the same keys, and which one a browser gets.

Stored sentences, which the engine and the jobs made, are translated in `sentences`.
"""

import json
from collections.abc import Callable
from datetime import datetime
from functools import cache
from pathlib import Path

__all__ = ["DEFAULT", "LANGUAGES", "Translate", "ago", "catalogue", "choose", "translator"]

LANGUAGES: dict[str, str] = {"en": "English", "zh": "中文"}
DEFAULT = "en"
_MESSAGES = Path(__file__).parent / "messages"
_SPANS = ((86400, "ago.days"), (3600, "ago.hours"), (60, "ago.minutes"))

Translate = Callable[..., str]
"""`t(key, **places)`: the text of a key; KeyError for one that no catalogue has."""


@cache
def catalogue(language: str) -> dict[str, str]:
    """Every text of a language by its key."""
    texts: dict[str, str] = json.loads((_MESSAGES / f"{language}.json").read_text(encoding="utf-8"))
    return texts


def translator(language: str) -> Translate:
    """The `t` of one language."""
    texts = catalogue(language)

    def t(key: str, /, **places: object) -> str:
        return texts[key].format_map(places) if places else texts[key]

    return t


def choose(cookie: str | None, accept_language: str | None) -> str:
    """The language of a page: the cookie's, else the first one in Accept-Language that there is, else English."""
    if cookie in LANGUAGES:
        return cookie
    weighted: list[tuple[float, str]] = []
    for part in (accept_language or "").split(","):
        name, _, options = part.strip().partition(";")
        weighted.append((_quality(options), name.strip().lower().split("-")[0]))
    known = [(quality, name) for quality, name in weighted if name in LANGUAGES and quality > 0]
    return max(known, key=lambda item: item[0])[1] if known else DEFAULT


def ago(t: Translate, at: datetime | None, now: datetime) -> str:
    """How long ago, in the largest whole unit; `ago.never` for None."""
    if at is None:
        return t("ago.never")
    seconds = max(0, int((now - at).total_seconds()))
    for span, key in _SPANS:
        if seconds >= span:
            return t(key, n=seconds // span)
    return t("ago.seconds", n=seconds)


def _quality(options: str) -> float:
    name, _, value = options.strip().partition("=")
    try:
        return float(value) if name.strip() == "q" else 1.0
    except ValueError:
        return 0.0
