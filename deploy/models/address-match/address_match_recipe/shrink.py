"""From the teacher to the student: fewer tokens, layers, heads and FFN rows.

Order matters: cut the structure first, distil after, quantise last. A network
that was only cut is close to chance; the distillation brings it back.
"""

from __future__ import annotations

import copy
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch.nn import functional

from address_match_recipe.bert import CrossEncoder
from address_match_recipe.graph import INPUTS
from address_match_recipe.pairs import Pair
from address_match_recipe.training import tensors
from wavegate_server.compress.distil import transformer
from wavegate_shared.wordpiece import WordPiece

__all__ = ["cut_layers", "importance", "prune", "trim_vocab"]

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
IMPORTANCE_BATCH = 16
CERTAIN = 50.0


def trim_vocab(vocab: Sequence[str], texts: Iterable[str], size: int) -> list[str]:
    """The tokens of `vocab` that training texts use most, at most `size`.

    Every printable ASCII character stays, alone and as a continuation, so no
    ASCII text becomes [UNK]. Numbers are kept as digits only: whether two
    postcodes agree is then a matter of ten tokens, not of thousands.

    Args:
        vocab: The teacher's tokens in id order.
        texts: Training texts; no held-out text may be among them.
        size: Most tokens to keep, special tokens included.
    """
    known = set(vocab)
    characters = string.ascii_lowercase + string.digits + string.punctuation
    spelled = [c for c in characters if c in known]
    spelled += [f"##{c}" for c in characters if f"##{c}" in known]
    base = [*SPECIAL_TOKENS, *spelled]
    words = [token for token in vocab if token.removeprefix("##").isalpha() and token.isascii()]
    candidates = [*base, *(token for token in words if token not in set(base))]
    # The limit only has to be out of reach: one text is never cut here.
    tokenizer = WordPiece(candidates, lowercase=True, max_length=10_000)
    used: Counter[int] = Counter()
    for text in texts:
        encoded = tokenizer.encode([text])
        for row, mask in zip(encoded.input_ids, encoded.attention_mask, strict=True):
            used.update(row[: sum(mask)])
    ranked = [candidates[i] for i, _ in used.most_common() if i >= len(base)]
    return base + ranked[: size - len(base)]


def cut_layers(
    teacher: CrossEncoder,
    layers: Sequence[int],
    old_vocab: Sequence[str],
    vocab: Sequence[str],
    positions: int,
) -> CrossEncoder:
    """A full-width student of some teacher layers and the trimmed vocabulary.

    Args:
        teacher: Left as it is.
        layers: Which of its layers to take, in order.
        old_vocab: The teacher's tokens in id order.
        vocab: The student's tokens in id order, each one in `old_vocab`.
        positions: Rows of the position table to keep.
    """
    shape = replace(teacher.shape, vocab=len(vocab), layers=len(layers), positions=positions)
    student = CrossEncoder(shape)
    student.classifier.load_state_dict(teacher.classifier.state_dict())
    for target, index in zip(student.layers, layers, strict=True):
        target.load_state_dict(teacher.layers[index].state_dict())
    ids = {token: index for index, token in enumerate(old_vocab)}
    weights = teacher.embeddings.state_dict()
    weights["word.weight"] = weights["word.weight"][[ids[token] for token in vocab]]
    weights["position.weight"] = weights["position.weight"][:positions]
    student.embeddings.load_state_dict(weights)
    return student


def importance(model: CrossEncoder, tokenizer: WordPiece, pairs: Sequence[Pair]) -> list[transformer.Importance]:
    """Gradient times activation of every head and FFN unit, per layer, as the product's compressor computes it.

    Args:
        model: Its weights do not change.
        tokenizer: The model's own.
        pairs: Labelled training pairs to sum over.
    """
    batches = []
    for start in range(0, len(pairs), IMPORTANCE_BATCH):
        batch = pairs[start : start + IMPORTANCE_BATCH]
        feed = dict(zip(INPUTS, tensors(tokenizer, [(pair.a, pair.b) for pair in batch]), strict=True))
        # As logits that leave no doubt, so that the distance is the cross-entropy with the labels.
        wanted = functional.one_hot(torch.tensor([pair.label for pair in batch]), 2) * CERTAIN
        batches.append((feed, wanted))
    return transformer.importance(model, batches)


def prune(model: CrossEncoder, worth: Sequence[transformer.Importance], heads: int, ffn: int) -> CrossEncoder:
    """The model with only the most important heads and FFN units of each layer.

    Args:
        model: Left as it is.
        worth: One entry per layer.
        heads: Heads to keep in each layer.
        ffn: FFN units to keep in each layer.
    """
    small = copy.deepcopy(model)
    transformer.prune(small, worth, heads, ffn)
    small.shape = replace(model.shape, heads=heads, ffn=ffn)
    return small
