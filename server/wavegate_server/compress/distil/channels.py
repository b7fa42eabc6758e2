"""Convolutional networks with fewer channels. Needs torch and torch-pruning; runs in the job's subprocesses only.

Structured pruning by L-n norm (torch's `ln_structured`: amount, n, dim) over the dependency graph: channels that are added,
concatenated or normalised together go together, so tensors really shrink and any convolutional net will do. The layers that
make the outputs keep theirs. A network that was only cut is close to chance: `distil` brings it back.

Source: Li et al. 2017, "Pruning filters for efficient convnets"; Fang et al. 2023, "DepGraph: towards any structural pruning".
"""

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wavegate_server.core.compress.structures import Facts, Structure

__all__ = ["AMOUNTS", "apply", "propose"]

Module = Any
Batch = Mapping[str, Tensor]

AMOUNTS = (0.3, 0.4, 0.5, 0.6, 0.7)
"""Shares of the channels to take away, light to heavy: what a search backs off along."""
_NORM, _DIM = 2, 0
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_LAYERS = (*_CONVS, nn.Linear)
_LEAST_CONVS = 3
_ROUND_TO = 8  # integer kernels work on this many channels at once
_EXAMPLE = 2
_HEADS = 6


def propose(module: Module, facts: Facts) -> list[Structure]:
    """Structures to try, light to heavy; empty where the module has hardly a convolution."""
    convs = [each for each in module.modules() if isinstance(each, _CONVS)]
    if len(convs) < _LEAST_CONVS or facts.tokens:
        return []
    held = sum(each.numel() for each in module.parameters())
    found = []
    for amount in AMOUNTS:
        parts = [_part(each.weight.shape[0], amount, rounded=_rounded(module)) for each in convs]
        before = [1.0, *parts]
        left = sum(_left(each, parts[at], before[at]) for at, each in enumerate(convs))
        others = held - sum(each.weight.numel() for each in convs)
        kept = (left + others * (1 - amount)) / held
        sizes = {"amount": amount, "n": _NORM, "dim": _DIM}
        found.append(Structure("channels", f"channels{round(100 * (1 - amount))}", sizes, kept, (1 - amount) ** 2))
    return found


def _part(width: int, amount: float, *, rounded: bool) -> float:
    """Share of a layer's channels that stays, where their number is rounded down."""
    left = width - int(width * amount)
    return (left // _ROUND_TO * _ROUND_TO if rounded else left) / width


def _rounded(module: Module) -> bool:
    """Whether every layer is wide enough to keep a multiple of `_ROUND_TO` channels."""
    widths = [each.weight.shape[0] for each in module.modules() if isinstance(each, _CONVS) and each.groups == 1]
    return min(widths, default=0) >= 4 * _ROUND_TO


def _left(conv: Module, part: float, part_before: float) -> float:
    """Weights of a convolution that stay: both its sides shrink; a depthwise one has only one."""
    return float(conv.weight.numel() * (part if conv.groups > 1 else part * part_before))


def apply(module: Module, structure: Structure, batches: Sequence[tuple[Batch, Tensor]]) -> Module:
    """A smaller copy of the module.

    Args:
        module: left as it is.
        structure: `amount` of the channels of each layer goes, those of the least L-`n` norm along `dim` 0.
        batches: (feed, the original's answers) pairs; the first is run to find what depends on what.

    Raises:
        ValueError: the module cannot be cut: its outputs would change their shape, or its code holds a number of channels.
    """
    sizes = structure.sizes
    if sizes.get("dim", 0) != 0 or not 0 < sizes["amount"] < 1:
        raise ValueError(
            f"amount {sizes['amount']} along dim {sizes.get('dim')}: only output channels, a share of them"
        )
    example = tuple(value[:_EXAMPLE] for value in batches[0][0].values())
    expected = _shapes(module, example)
    order = _run_order(module, example)
    problem = ""
    for heads in range(1, min(_HEADS, len(order)) + 1):
        small = copy.deepcopy(module)
        keep = [small.get_submodule(name) for name in order[-heads:]]
        try:
            _prune(small, example, keep, amount=sizes["amount"], n=sizes.get("n", _NORM))
            got = _shapes(small, example)
        except (RuntimeError, IndexError, KeyError, AttributeError) as error:
            problem = " ".join(str(error).split())[:160]
            continue
        if got == expected and _held(small) < _held(module):
            return small
        problem = f"outputs {got} instead of {expected}" if got != expected else problem
    raise ValueError(problem or "every layer makes an output, or its code holds the number of channels")


def _held(module: Module) -> int:
    return sum(each.numel() for each in module.parameters())


def _prune(module: Module, example: tuple[Tensor, ...], keep: list[Module], *, amount: float, n: int) -> None:
    import torch_pruning

    for parameter in module.parameters():
        parameter.requires_grad_(True)  # the dependency graph is found by following gradients
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one line for each parameter it leaves alone
        pruner = torch_pruning.pruner.BasePruner(
            module,
            example,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=n),
            pruning_ratio=amount,
            max_pruning_ratio=amount,
            ignored_layers=keep,
            round_to=_ROUND_TO if _rounded(module) else None,
        )
        pruner.step()
    module.zero_grad(set_to_none=True)


def _run_order(module: Module, example: tuple[Tensor, ...]) -> list[str]:
    """Names of the weighted layers in the order they run."""
    names: list[str] = []
    hooks = [
        each.register_forward_hook(lambda *_, name=name: names.append(name))
        for name, each in module.named_modules()
        if isinstance(each, _LAYERS)
    ]
    try:
        _shapes(module, example)
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys(names))


def _shapes(module: Module, example: tuple[Tensor, ...]) -> list[tuple[int, ...]]:
    module.eval()
    with torch.no_grad():
        out = module(*example)
    outputs = out if isinstance(out, (list, tuple)) else list(out.values()) if isinstance(out, Mapping) else [out]
    return [tuple(each.shape) for each in outputs if isinstance(each, Tensor)]
