"""Every text can be said: its places have a name that says how they are written."""

import re

from wavegate_server.core.english import ENGLISH
from wavegate_server.core.sentences import LISTS, places


def test_codes_are_a_group_and_a_name() -> None:
    assert [code for code in ENGLISH if not re.fullmatch(r"text|[a-z]+\.[a-z0-9_]+", code)] == []


def test_texts_are_not_empty_and_no_two_are_the_same() -> None:
    bare = {code: text for code, text in ENGLISH.items() if not re.fullmatch(r"\{\w+\}", text)}
    assert len(set(bare.values())) == len(bare)
    assert all(bare.values())


def test_lists_are_known_by_their_place() -> None:
    assert {place for text in ENGLISH.values() for place in places(text)} >= LISTS
