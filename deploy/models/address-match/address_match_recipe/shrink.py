"""From the teacher to the student: fewer tokens, layers, heads and FFN rows.

Order matters: cut the structure first, distil after, quantise last. A network
that was only cut is close to chance; the distillation brings it back.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from address_match_recipe.bert import CrossEncoder, Layer
from address_match_recipe.pairs import Pair
from address_match_recipe.training import tensors
from wavegate_shared.wordpiece import WordPiece

__all__ = ["Importance", "cut_layers", "importance", "prune", "trim_vocab"]

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
IMPORTANCE_BATCH = 16


@dataclass(frozen=True, slots=True)
class Importance:
    """What a layer's parts are worth: (heads,) and (ffn,) float, larger is dearer."""

    heads: Tensor
    ffn: Tensor


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


def importance(model: CrossEncoder, tokenizer: WordPiece, pairs: Sequence[Pair]) -> list[Importance]:
    """Gradient times activation of every head and FFN unit, per layer.

    A gate of one is put behind each part; the loss's slope at the gate is the
    activation times its gradient (Michel et al. 2019, "Are sixteen heads really
    better than one?").

    Args:
        model: Gates are added and removed; its weights do not change.
        tokenizer: The model's own.
        pairs: Labelled training pairs to sum over.
    """
    model.eval()
    layers = [layer for layer in model.layers if isinstance(layer, Layer)]
    for layer in layers:
        layer.head_gate = torch.ones(layer.heads, requires_grad=True)
        layer.ffn_gate = torch.ones(layer.up.out_features, requires_grad=True)
    gates = [gate for layer in layers for gate in (layer.head_gate, layer.ffn_gate)]
    kept = [gate for gate in gates if gate is not None]
    sums = [torch.zeros_like(gate) for gate in kept]
    for start in range(0, len(pairs), IMPORTANCE_BATCH):
        batch = pairs[start : start + IMPORTANCE_BATCH]
        logits = model(*tensors(tokenizer, [(pair.a, pair.b) for pair in batch]))
        loss = functional.cross_entropy(logits, torch.tensor([pair.label for pair in batch]))
        for total, slope in zip(sums, torch.autograd.grad(loss, kept), strict=True):
            total += slope.abs()
    for layer in layers:
        layer.head_gate = layer.ffn_gate = None
    return [Importance(*sums[2 * i : 2 * i + 2]) for i in range(len(layers))]


def prune(model: CrossEncoder, worth: Sequence[Importance], heads: int, ffn: int) -> CrossEncoder:
    """The model with only the most important heads and FFN units of each layer.

    Args:
        model: Left as it is.
        worth: One entry per layer.
        heads: Heads to keep in each layer.
        ffn: FFN units to keep in each layer.
    """
    small = CrossEncoder(replace(model.shape, heads=heads, ffn=ffn))
    small.embeddings.load_state_dict(model.embeddings.state_dict())
    small.classifier.load_state_dict(model.classifier.state_dict())
    for target, source, part in zip(small.layers, model.layers, worth, strict=True):
        _copy_layer(target, source, _best(part.heads, heads), _best(part.ffn, ffn), small.shape.head_dim)
    return small


def _best(worth: Tensor, count: int) -> Tensor:
    return worth.topk(count).indices.sort().values


def _copy_layer(target: nn.Module, source: nn.Module, heads: Tensor, units: Tensor, size: int) -> None:
    state = source.state_dict()
    rows = (heads[:, None] * size + torch.arange(size)).flatten()
    for name in ("query", "key", "value"):
        state[f"{name}.weight"] = state[f"{name}.weight"][rows]
        state[f"{name}.bias"] = state[f"{name}.bias"][rows]
    state["output.weight"] = state["output.weight"][:, rows]
    state["up.weight"], state["up.bias"] = state["up.weight"][units], state["up.bias"][units]
    state["down.weight"] = state["down.weight"][:, units]
    target.load_state_dict(state)
