"""A smaller vocabulary reads the texts it was made from as before."""

import string

from hypothesis import given
from hypothesis import strategies as st

from wavegate_server.core.compress.vocabulary import trim
from wavegate_shared.wordpiece import WordPiece

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
PIECES = [
    "walk",
    "walking",
    "##ing",
    "##in",
    "##g",
    "wal",
    "##king",
    "##k",
    "road",
    "##s",
    "5",
    "##5",
    "w",
    "##a",
    "北",
    "京",
]
VOCAB = [*SPECIAL[:1], "[unused1]", *PIECES, *SPECIAL[1:], *string.ascii_lowercase, "road"]
WORDS = st.text(alphabet="walkingrods5 北京", min_size=1, max_size=12)


def tokens(vocab: list[str], text: str) -> list[str]:
    encoded = WordPiece(vocab, lowercase=True, max_length=512).encode([text])
    used = sum(encoded.attention_mask[0])
    return [vocab[at] for at in encoded.input_ids[0][:used]]


@given(st.lists(WORDS, min_size=1, max_size=6))
def test_every_text_it_was_made_from_is_cut_into_the_same_tokens(texts: list[str]) -> None:
    trimmed = trim(VOCAB, texts, lowercase=True)
    for text in texts:
        assert tokens(trimmed.tokens, text) == tokens(VOCAB, text)
    assert [VOCAB[at] for at in trimmed.ids] == trimmed.tokens


def test_what_is_not_used_goes_and_ascii_can_still_be_spelt() -> None:
    trimmed = trim(VOCAB, ["walking road"], lowercase=True)
    assert "[unused1]" not in trimmed.tokens
    assert {"walking", "road", *SPECIAL, *string.ascii_lowercase, "##k"} <= set(trimmed.tokens)
    assert "##king" not in trimmed.tokens
    assert "北" not in trimmed.tokens
    assert trimmed.tokens.count("road") == 1


def test_rare_tokens_can_be_dropped() -> None:
    often = trim(VOCAB, ["walking", "walking", "road"], lowercase=True, at_least=2)
    assert "walking" in often.tokens
    assert "road" not in often.tokens
