"""Smaller transformers: fewer layers, heads, FFN units, tokens and positions. Needs torch; runs in the job's subprocesses only.

Works on any module that is built like BERT, found by its names: a list of layers with query, key, value, an output
projection and two FFN products. Tensors really shrink; the module's own classes stay. What to drop is decided by gradient
times activation (Michel et al. 2019, "Are sixteen heads really better than one?"): a gate of one behind each head and unit,
and the slope of the loss at it. A network that was only cut is close to chance: `distil` brings it back.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wavegate_server.core.compress.structures import Facts, Structure

__all__ = ["Importance", "Layers", "apply", "find_layers", "importance", "keep_tokens", "propose", "prune", "spaced"]

Module = Any
Batch = Mapping[str, Tensor]
Loss = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class _Names:
    """Paths of a layer's products."""

    query: str
    key: str
    value: str
    merge: str
    up: str
    down: str

    def all(self) -> tuple[str, ...]:
        return (self.query, self.key, self.value, self.merge, self.up, self.down)


_SCHEMES = (
    _Names(
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ),
    _Names("query", "key", "value", "output", "up", "down"),
    _Names("attention.query", "attention.key", "attention.value", "attention.output", "ffn.up", "ffn.down"),
)
_HEADS = ("num_attention_heads", "num_heads", "n_heads", "heads")
_WIDTH = ("all_head_size", "embed_dim", "width")
_POSITION_BUFFERS = ("position_ids", "token_type_ids")


@dataclass(frozen=True, slots=True)
class Layers:
    """The layers of a module. Attributes: stack (the ModuleList), names, heads, head_size and ffn of its layers."""

    stack: Module
    names: _Names
    heads: int
    head_size: int
    ffn: int


@dataclass(frozen=True, slots=True)
class Importance:
    """What a layer's parts are worth: (heads,) and (ffn,) float, larger is dearer."""

    heads: Tensor
    ffn: Tensor


def find_layers(module: Module) -> Layers | None:
    """The transformer layers of a module; None where it has none that we know how to cut."""
    for stack in module.modules():
        if not isinstance(stack, nn.ModuleList) or len(stack) == 0:
            continue
        for names in _SCHEMES:
            if all(_is_layer(layer, names) for layer in stack):
                owner = _owner(stack[0], names.query)
                heads = next((int(getattr(owner, name)) for name in _HEADS if hasattr(owner, name)), 0)
                rows = _at(stack[0], names.query).out_features
                if heads and rows % heads == 0:
                    return Layers(stack, names, heads, rows // heads, _at(stack[0], names.up).out_features)
    return None


def _is_layer(layer: Module, names: _Names) -> bool:
    return all(isinstance(_at(layer, name), nn.Linear) for name in names.all())


def _at(module: Module, path: str) -> Module:
    for part in path.split("."):
        module = getattr(module, part, None)
    return module


def _owner(layer: Module, path: str) -> Module:
    head, _, _ = path.rpartition(".")
    return _at(layer, head) if head else layer


def propose(module: Module, facts: Facts) -> list[Structure]:
    """Structures to try, light to heavy; empty where the module is no transformer we know."""
    found = find_layers(module)
    if found is None:
        return []
    depth = len(found.stack)
    shapes = [
        (depth, 1.0),
        (-(-depth * 2 // 3), 1.0),
        (-(-depth // 2), 1.0),
        (-(-depth // 2), 0.5),
        (-(-depth // 3), 0.5),
        (-(-depth // 3), 0.25),
        (max(1, depth // 6), 0.5),
        (max(1, depth // 6), 0.25),
    ]
    sizes = [
        {"layers": spaced(depth, layers), "heads": max(1, round(found.heads * part)), "ffn": _part(found.ffn, part)}
        for layers, part in shapes
    ]
    made = [_structure(module, found, each, facts) for each in sizes if facts.tokens or each != sizes[0]]
    unique = {each.name: each for each in made}
    return sorted(unique.values(), key=lambda each: (-each.work, -each.parameters))


def _part(size: int, part: float) -> int:
    return max(1, int(size * part))


def spaced(depth: int, count: int) -> list[int]:
    """`count` of `depth` layers, evenly spaced: 2 of 6 are 1 and 4, 3 of 6 are 1, 3 and 5."""
    return [min(depth - 1, int((at + 0.5) * depth / count - 0.5 + 0.5)) for at in range(count)]


def _structure(module: Module, found: Layers, sizes: dict[str, Any], facts: Facts) -> Structure:
    one = found.stack[0]
    products = [_at(one, name) for name in found.names.all()]
    hidden = products[0].in_features
    before = len(found.stack) * sum(each.weight.numel() for each in products)
    after = len(sizes["layers"]) * hidden * (4 * sizes["heads"] * found.head_size + 2 * sizes["ffn"])
    whole = sum(each.numel() for each in module.parameters())
    word = _word_embedding(module)
    dropped = (word.num_embeddings - facts.tokens) * word.embedding_dim if facts.tokens and word is not None else 0
    dropped += sum(
        max(0, each.num_embeddings - facts.positions) * each.embedding_dim
        for _, each in _position_embeddings(module)
        if facts.positions
    )
    name = f"layers{len(sizes['layers'])}-heads{sizes['heads']}-ffn{sizes['ffn']}"
    share = (whole - before + after - max(0, dropped)) / whole
    return Structure("transformer", name, {**sizes, "tokens": facts.tokens}, share, after / before)


def _word_embedding(module: Module) -> Module | None:
    """The largest look-up table that is not one of positions."""
    tables = [
        (name, each)
        for name, each in module.named_modules()
        if isinstance(each, nn.Embedding) and "position" not in name.lower() and "type" not in name.lower()
    ]
    return max(tables, key=lambda pair: pair[1].num_embeddings)[1] if tables else None


def _position_embeddings(module: Module) -> list[tuple[str, Module]]:
    tables = [(name, each) for name, each in module.named_modules() if isinstance(each, nn.Embedding)]
    return [(name, each) for name, each in tables if "position" in name.lower()]


def apply(module: Module, structure: Structure, batches: Sequence[tuple[Batch, Tensor]]) -> Module:
    """A smaller copy of the module; the module itself is left as it is.

    Args:
        module: with the transformer layers of `find_layers`.
        structure: from `propose`.
        batches: inputs by name in the module's order, and what it answers on them; parts are ranked by what they are worth there.
    """
    small = copy.deepcopy(module).eval()
    found = find_layers(small)
    if found is None:
        raise AssertionError("only modules with a proposal are cut")
    _cut_layers(small, found, structure.sizes["layers"])
    heads, ffn = structure.sizes["heads"], structure.sizes["ffn"]
    if heads < found.heads or ffn < found.ffn:
        prune(small, importance(small, batches), heads, ffn)
    return small


def _cut_layers(module: Module, found: Layers, kept: Sequence[int]) -> None:
    layers = [found.stack[at] for at in kept]
    while len(found.stack):
        del found.stack[-1]
    found.stack.extend(layers)
    for each in module.modules():
        config: Any = getattr(each, "config", None)
        if hasattr(config, "num_hidden_layers"):
            config.num_hidden_layers = len(layers)  # HF's encoders read it to know how many layers to run


def importance(module: Module, batches: Sequence[tuple[Batch, Tensor]]) -> list[Importance]:
    """Gradient times activation of every head and FFN unit, a record for each layer. The module does not change.

    Args:
        module: with the transformer layers of `find_layers`; run in eval mode.
        batches: inputs, and the answers to compare with: class logits (n, k), or the numbers of a regression.
    """
    found = find_layers(module)
    if found is None:
        raise AssertionError("only transformers have heads")
    gates: list[tuple[Tensor, Tensor]] = []
    hooks = []
    for layer in found.stack:
        head, unit = torch.ones(found.heads, requires_grad=True), torch.ones(found.ffn, requires_grad=True)
        gates.append((head, unit))
        hooks.append(_at(layer, found.names.merge).register_forward_pre_hook(_gated(head, found.head_size)))
        hooks.append(_at(layer, found.names.down).register_forward_pre_hook(_gated(unit, 1)))
    flat = [gate for pair in gates for gate in pair]
    sums = [torch.zeros_like(gate) for gate in flat]
    module.eval()
    try:
        for feed, wanted in batches:
            loss = _distance(first_output(module(*feed.values())), wanted)
            for total, slope in zip(sums, torch.autograd.grad(loss, flat), strict=True):
                total += slope.abs()
    finally:
        for hook in hooks:
            hook.remove()
    return [Importance(*sums[2 * at : 2 * at + 2]) for at in range(len(gates))]


def _gated(gate: Tensor, repeat: int) -> Callable[[Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    return lambda _, args: (args[0] * gate.repeat_interleave(repeat), *args[1:])


def first_output(answer: Any) -> Tensor:
    """The first output of a module that returns a tensor, a tuple, or an object with fields."""
    if isinstance(answer, Tensor):
        return answer
    values = list(answer.values()) if isinstance(answer, Mapping) else list(answer)
    return values[0]


def _distance(got: Tensor, wanted: Tensor) -> Tensor:
    got, wanted = got.float(), wanted.float()
    if got.ndim == 2 and got.shape[1] > 1:
        return nn.functional.cross_entropy(got, wanted.softmax(dim=-1))
    return nn.functional.mse_loss(got, wanted)


def prune(module: Module, worth: Sequence[Importance], heads: int, ffn: int) -> None:
    """Keep only the dearest heads and FFN units of each layer, in place.

    Args:
        module: with the transformer layers of `find_layers`.
        worth: a record for each layer.
        heads: heads to keep in each layer.
        ffn: FFN units to keep in each layer.
    """
    found = find_layers(module)
    if found is None:
        raise AssertionError("only transformers have heads")
    for layer, part in zip(found.stack, worth, strict=True):
        kept, units = _best(part.heads, heads), _best(part.ffn, ffn)
        rows = (kept[:, None] * found.head_size + torch.arange(found.head_size)).flatten()
        names = found.names
        for name in (names.query, names.key, names.value):
            _keep_rows(_at(layer, name), rows)
        _keep_columns(_at(layer, names.merge), rows)
        _keep_rows(_at(layer, names.up), units)
        _keep_columns(_at(layer, names.down), units)
        owner = _owner(layer, names.query)
        for attribute, value in (*((name, heads) for name in _HEADS), *((name, len(rows)) for name in _WIDTH)):
            if hasattr(owner, attribute):
                setattr(owner, attribute, value)


def _best(worth: Tensor, count: int) -> Tensor:
    return worth.topk(count).indices.sort().values


def _keep_rows(linear: Module, rows: Tensor) -> None:
    linear.weight = nn.Parameter(linear.weight.detach()[rows].clone())
    if linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias.detach()[rows].clone())
    linear.out_features = len(rows)


def _keep_columns(linear: Module, columns: Tensor) -> None:
    linear.weight = nn.Parameter(linear.weight.detach()[:, columns].clone())
    linear.in_features = len(columns)


def keep_tokens(module: Module, ids: Sequence[int], *, before: int, positions: int = 0) -> None:
    """Keep only these rows of the word embedding, in place; with `positions`, only so many of the position embedding.

    Args:
        module: holds a word embedding of `before` rows.
        ids: kept ids; the new id of each is its place here.
        before: size of the vocabulary that the ids are from.
        positions: longest input in tokens; 0 leaves the positions alone.

    Raises:
        ValueError: no embedding of that size.
    """
    word = _word_embedding(module)
    if word is None or word.num_embeddings < before:
        raise ValueError(f"the module has no word embedding for {before} tokens")
    _keep_entries(word, torch.tensor(list(ids)))
    for _, table in _position_embeddings(module):
        if 0 < positions < table.num_embeddings:
            _keep_entries(table, torch.arange(positions))
            _cut_buffers(module, positions)


def _keep_entries(table: Module, kept: Tensor) -> None:
    table.weight = nn.Parameter(table.weight.detach()[kept].clone())
    table.num_embeddings = len(kept)
    if table.padding_idx is not None:
        at = (kept == table.padding_idx).nonzero()
        table.padding_idx = int(at[0]) if len(at) else None


def _cut_buffers(module: Module, positions: int) -> None:
    for owner in module.modules():
        for name in _POSITION_BUFFERS:
            held = owner._buffers.get(name)
            if held is not None and held.ndim == 2 and held.shape[1] > positions:
                owner._buffers[name] = held[:, :positions].clone()
