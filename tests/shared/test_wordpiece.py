"""Our tokenizer answers what the reference answers, value by value.

The golden file was written once by `deploy/models/address-match/freeze_wordpiece.py`
with the `tokenizers` package.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from wavegate_shared.wordpiece import PAD_MULTIPLE, Encoded, WordPiece

GOLDEN = Path(__file__).parent / "golden" / "wordpiece.json"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
VOCAB = [*SPECIAL, "flat", "green", "##wood", "##s", "1", ","]


@dataclass(frozen=True)
class Case:
    text: str | tuple[str, str]
    max_length: int
    lowercase: bool
    rows: Encoded


def frozen() -> tuple[list[str], list[Case]]:
    document = json.loads(GOLDEN.read_text(encoding="utf-8"))
    cases = []
    for case in document["cases"]:
        text = case["text"] if isinstance(case["text"], str) else (case["text"][0], case["text"][1])
        rows = Encoded([case["input_ids"]], [case["attention_mask"]], [case["token_type_ids"]])
        cases.append(Case(text, case["max_length"], case["lowercase"], rows))
    return document["vocab"], cases


def small(max_length: int = 48) -> WordPiece:
    return WordPiece(VOCAB, lowercase=True, max_length=max_length)


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("max_length", [8, 16, 31, 48])
def test_ids_masks_and_types_are_the_references(lowercase: bool, max_length: int) -> None:
    vocab, cases = frozen()
    tokenizer = WordPiece(vocab, lowercase=lowercase, max_length=max_length)
    chosen = [case for case in cases if (case.lowercase, case.max_length) == (lowercase, max_length)]
    assert len(chosen) == 54
    for case in chosen * 2:  # the second round is answered from memory
        got = tokenizer.encode([case.text]) if isinstance(case.text, str) else tokenizer.encode_pairs([case.text])
        assert got == case.rows, case.text


def test_a_batch_is_padded_to_its_longest_row_rounded_up() -> None:
    got = small().encode_pairs([("flat 1", "green"), ("flat " * 12, "greenwoods " * 4)])
    widths = {len(row) for rows in (got.input_ids, got.attention_mask, got.token_type_ids) for row in rows}
    assert widths == {2 * PAD_MULTIPLE}
    assert [sum(mask) for mask in got.attention_mask] == [6, 27]
    assert got.input_ids[0][6:] == [0] * 26


def test_each_row_is_the_same_alone_and_in_a_batch() -> None:
    pairs = [("flat 1", "greenwood"), ("FLAT, 1", "x"), ("", "green")]
    together = small().encode_pairs(pairs)
    for index, pair in enumerate(pairs):
        assert small().encode_pairs([pair]).input_ids[0] == together.input_ids[index]


def test_an_empty_batch_has_no_rows() -> None:
    assert small().encode_pairs([]) == Encoded([], [], [])
    assert small().encode([]) == Encoded([], [], [])


def test_the_memory_of_words_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wavegate_shared.wordpiece._MEMO_WORDS", 10)
    tokenizer = small()
    first = tokenizer.encode(["green 0"])
    for number in range(100):
        tokenizer.encode([f"green {number} {'s' * 90}"])
    assert len(tokenizer._memo) <= 10
    assert tokenizer.encode(["green 0"]) == first


@pytest.mark.parametrize("lost", SPECIAL)
def test_a_vocabulary_without_a_special_token_is_refused(lost: str) -> None:
    with pytest.raises(ValueError, match=lost.strip("[]")):
        WordPiece([token for token in VOCAB if token != lost], lowercase=True, max_length=48)


def test_a_length_without_room_for_the_special_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        small(max_length=2)
