"""Which tokens a smaller vocabulary keeps: those that the samples use, and what is needed to spell anything in ASCII. Pure.

The kept tokens stay in their order. Each sample text is cut into the same tokens as before: the longest match is still
there, and no token was added that could match longer. A text that no sample looked like is spelt in smaller pieces.
"""

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wavegate_shared.wordpiece import WordPiece

__all__ = ["Trimmed", "trim"]

_SPECIAL = re.compile(r"\[(PAD|UNK|CLS|SEP)\]")
_NO_LIMIT = 10_000
"""Tokens of one text: the count must not be cut at the model's own length."""


@dataclass(frozen=True, slots=True)
class Trimmed:
    """A smaller vocabulary. Attributes: tokens in order, ids, the id each had before."""

    tokens: list[str]
    ids: list[int]


def trim(vocab: Sequence[str], texts: Iterable[str], *, lowercase: bool, at_least: int = 1) -> Trimmed:
    """The tokens of `vocab` that are special, spell ASCII, or occur in `texts` at least so many times.

    Args:
        vocab: tokens in id order.
        texts: what the model reads; no held-out text may be among them.
        lowercase: as the bundle's pre-processing does.
        at_least: how often a token must occur.
    """
    tokenizer = WordPiece(vocab, lowercase=lowercase, max_length=_NO_LIMIT)
    used: Counter[int] = Counter()
    for text in texts:
        encoded = tokenizer.encode([text])
        for row, mask in zip(encoded.input_ids, encoded.attention_mask, strict=True):
            used.update(row[: sum(mask)])
    spelling = set(string.ascii_letters + string.digits + string.punctuation)
    last = {token: at for at, token in enumerate(vocab)}  # of a token given twice the last id counts
    kept = [
        at
        for at, token in enumerate(vocab)
        if last[token] == at
        and (used[at] >= at_least or _SPECIAL.fullmatch(token) or token.removeprefix("##") in spelling)
    ]
    return Trimmed([vocab[at] for at in kept], kept)
