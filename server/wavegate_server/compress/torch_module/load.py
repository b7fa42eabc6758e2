"""The torch module of a bundle, with its weights, ready to run. Imported only in subprocesses that entered `sandbox` first.

The factory is Python of the bundle's author and runs as such. Weights are data: safetensors, or what torch reads with
`weights_only=True`; a pickle that would run code is refused before it does.
"""

import importlib.util
import pickle
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from wavegate_server.core.bundle_spec import Source
from wavegate_shared.errors import UsageError

__all__ = ["load", "load_weights"]

_WRAPPED = ("state_dict", "model_state_dict", "model")
"""Keys under which checkpoints commonly keep the weights, besides optimizer state."""


def load(bundle_dir: Path, source: Source) -> nn.Module:
    """The module with its weights, in eval mode.

    Raises:
        UsageError: `bundle_invalid`: what does not fit; `weights_unsafe`: the weights are a program.
    """
    module = _build(bundle_dir, source)
    _fill(module, load_weights(bundle_dir / source.weights))
    return module.eval()


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a weights file, by name.

    Raises:
        UsageError: `weights_unsafe`: reading it would run code; `bundle_invalid`: it is no weights file.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(str(path)))
        with warnings.catch_warnings(action="ignore"):  # about the age of the format
            held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            "weights_unsafe",
            f"{path.name} is a pickle that holds more than tensors, and reading it would run its code: save the state"
            f" dict alone, best as safetensors ({_short(error)})",
        ) from error
    except (SafetensorError, OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        raise UsageError("bundle_invalid", f"{path.name} holds no weights that can be read: {_short(error)}") from error
    return _tensors(path.name, held)


def _fill(module: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    try:
        module.load_state_dict(dict(weights), strict=True)
    except RuntimeError as error:
        raise UsageError("bundle_invalid", f"weights and module do not fit: {_short(error)}") from error


def _tensors(name: str, held: Any) -> dict[str, torch.Tensor]:
    for key in _WRAPPED:
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
    if not isinstance(held, Mapping) or not all(isinstance(value, torch.Tensor) for value in held.values()):
        raise UsageError("bundle_invalid", f"{name} is not a state dict (names and tensors)")
    return {str(key): value for key, value in held.items()}


def _build(bundle_dir: Path, source: Source) -> nn.Module:
    file = bundle_dir / source.file
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(f"wavegate_source_{file.stem}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise UsageError("bundle_invalid", f"{source.file} is no Python file")
    code = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = code
    try:
        spec.loader.exec_module(code)
        built = getattr(code, source.function)(**source.options)
    except (Exception, SystemExit) as error:  # the author's own code may raise anything, and its author is to see it
        raise UsageError("bundle_invalid", f"{source.factory}: {type(error).__name__}: {_short(error)}") from error
    if not isinstance(built, nn.Module):
        raise UsageError("bundle_invalid", f"{source.factory} gave a {type(built).__name__}, not an nn.Module")
    return built


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
