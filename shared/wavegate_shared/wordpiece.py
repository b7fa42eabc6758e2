"""BERT's WordPiece tokenizer in pure Python, for texts and pairs of texts.

A device turns each request's text into token ids before the model runs, so this
module needs the standard library only and remembers the words it has met. It
does what the reference does (`BertTokenizer`, `tokenizers.BertWordPieceTokenizer`):
clean, set CJK characters apart, strip accents, lower-case, split punctuation,
then match greedily the longest piece first. Not here: training a vocabulary,
decoding, special tokens written inside the text.

Source: Devlin et al. 2018, BERT, `tokenization.py` of the reference code.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["PAD_MULTIPLE", "Encoded", "WordPiece"]

PAD_MULTIPLE = 16
"""Widths are rounded up to this, so a runtime meets few distinct shapes."""

_MAX_WORD_CHARS = 100  # longer words become one [UNK]: the reference's limit
_MEMO_WORD_CHARS = 64  # bounds the bytes one remembered word can take
_MEMO_WORDS = 20_000  # about 4 MB at worst; emptied when full
_CJK_RANGES = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of a batch, every row of one list as long as the others.

    Attributes:
        input_ids: (n, width) token ids, [PAD] behind the text.
        attention_mask: (n, width), 1 where there is a token, 0 on padding.
        token_type_ids: (n, width), 1 on the second text and its [SEP], else 0.
    """

    input_ids: list[list[int]]
    attention_mask: list[list[int]]
    token_type_ids: list[list[int]]


class WordPiece:
    """Encodes texts with one vocabulary; the same input always gives the same ids."""

    def __init__(self, vocab: Sequence[str], *, lowercase: bool, max_length: int) -> None:
        """Takes the vocabulary in id order.

        Args:
            vocab: One token per id; continuation pieces begin with "##". Must
                hold [PAD], [UNK], [CLS] and [SEP]. A token given twice keeps
                its last id, as the reference does.
            lowercase: Lower-case and strip accents first.
            max_length: Most tokens of one row, special tokens included; >= 3.

        Raises:
            ValueError: A special token is missing or `max_length` is too small.
        """
        ids = {token: index for index, token in enumerate(vocab)}
        missing = [token for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]") if token not in ids]
        if missing:
            raise ValueError(f"vocabulary lacks {', '.join(missing)}")
        if max_length < 3:
            raise ValueError(f"max_length must be at least 3, not {max_length}")
        self._pad, self._unk = ids["[PAD]"], ids["[UNK]"]
        self._cls, self._sep = ids["[CLS]"], ids["[SEP]"]
        self._first = {token: index for token, index in ids.items() if not token.startswith("##")}
        self._rest = {token[2:]: index for token, index in ids.items() if token.startswith("##")}
        self._longest_first = max(map(len, self._first))
        self._longest_rest = max(map(len, self._rest), default=0)
        self._lowercase = lowercase
        self._max_length = max_length
        self._memo: dict[str, tuple[int, ...]] = {}

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Token ids of single texts: [CLS] text [SEP].

        Args:
            texts: (n,) texts, n >= 0.

        Returns:
            Rows cut to `max_length`, padded to the longest row rounded up to
            `PAD_MULTIPLE`.
        """
        room = self._max_length - 2
        rows = [[self._cls, *self._ids(text)[:room], self._sep] for text in texts]
        return self._padded(rows, [len(row) for row in rows])

    def encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> Encoded:
        """Token ids of text pairs: [CLS] a [SEP] b [SEP].

        Args:
            pairs: (n,) pairs, n >= 0.

        Returns:
            Rows cut to `max_length` (the longer text loses first), padded to
            the longest row rounded up to `PAD_MULTIPLE`.
        """
        rows, firsts = [], []
        for a, b in pairs:
            left, right = self._ids(a), self._ids(b)
            keep_left, keep_right = _longest_first(len(left), len(right), self._max_length - 3)
            row = [self._cls, *left[:keep_left], self._sep, *right[:keep_right], self._sep]
            rows.append(row)
            firsts.append(min(len(left), keep_left) + 2)
        return self._padded(rows, firsts)

    def _padded(self, rows: list[list[int]], firsts: list[int]) -> Encoded:
        """Adds masks and padding; `firsts` counts each row's tokens of type 0."""
        longest = max(map(len, rows), default=0)
        width = -(-longest // PAD_MULTIPLE) * PAD_MULTIPLE
        masks, types = [], []
        for row, first in zip(rows, firsts, strict=True):
            used = len(row)
            row.extend([self._pad] * (width - used))
            masks.append([1] * used + [0] * (width - used))
            types.append([0] * first + [1] * (used - first) + [0] * (width - used))
        return Encoded(rows, masks, types)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = []
        for chunk in (text if _is_clean(text) else _clean(text)).split():
            known = self._memo.get(chunk)
            if known is None:
                known = self._chunk_ids(chunk)
                self._remember(chunk, known)
            ids.extend(known)
        return ids

    def _remember(self, chunk: str, ids: tuple[int, ...]) -> None:
        if len(chunk) > _MEMO_WORD_CHARS:
            return
        if len(self._memo) >= _MEMO_WORDS:
            self._memo.clear()
        self._memo[chunk] = ids

    def _chunk_ids(self, chunk: str) -> tuple[int, ...]:
        """Ids of a piece of text without whitespace."""
        ids: list[int] = []
        for part in _cjk_apart(chunk).split():
            plain = _without_accents(part).lower() if self._lowercase else part
            for word in _words(plain):
                ids.extend(self._word_ids(word))
        return tuple(ids)

    def _word_ids(self, word: str) -> list[int]:
        """Greedy longest match; one [UNK] for a word that cannot be spelt."""
        if len(word) > _MAX_WORD_CHARS:
            return [self._unk]
        ids: list[int] = []
        start, size = 0, len(word)
        pieces, longest = self._first, self._longest_first
        while start < size:
            for end in range(min(size, start + longest), start, -1):
                found = pieces.get(word[start:end])
                if found is not None:
                    break
            else:
                return [self._unk]
            ids.append(found)
            start = end
            pieces, longest = self._rest, self._longest_rest
        return ids


def _longest_first(left: int, right: int, room: int) -> tuple[int, int]:
    """How many tokens of each text to keep so that both fit into `room`."""
    if left + right <= room:
        return left, right
    short, long = min(left, right), max(left, right)
    long = max(short, room - short)
    if short + long > room:
        short, long = room // 2, room - room // 2
    return (long, short) if left > right else (short, long)


def _is_clean(text: str) -> bool:
    """Whether `_clean` would change nothing: the common case, at C speed."""
    return text.isprintable() and "\ufffd" not in text


def _clean(text: str) -> str:
    """Drops control characters, turns every whitespace character into a space."""
    kept = []
    for char in text:
        if char in "\t\n\r":
            kept.append(" ")
            continue
        category = unicodedata.category(char)
        if category.startswith("C") or char == "\ufffd":
            continue
        kept.append(" " if category.startswith("Z") else char)
    return "".join(kept)


def _cjk_apart(text: str) -> str:
    if text.isascii():
        return text
    return "".join(f" {char} " if _is_cjk(char) else char for char in text)


def _is_cjk(char: str) -> bool:
    point = ord(char)
    return any(low <= point <= high for low, high in _CJK_RANGES)


def _without_accents(text: str) -> str:
    if text.isascii():
        return text
    decomposed = unicodedata.normalize("NFD", text)
    return "".join(char for char in decomposed if unicodedata.category(char) != "Mn")


def _words(text: str) -> Iterator[str]:
    """Runs of other characters, and each punctuation character by itself."""
    if text.isalnum():  # no punctuation character is alphanumeric
        yield text
        return
    start = 0
    for index, char in enumerate(text):
        if _is_punctuation(char):
            if index > start:
                yield text[start:index]
            yield char
            start = index + 1
    if start < len(text):
        yield text[start:]


def _is_punctuation(char: str) -> bool:
    if char.isascii():
        return char.isprintable() and not char.isalnum() and char != " "
    return unicodedata.category(char).startswith("P")
