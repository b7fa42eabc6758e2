"""The declared pre- and post-processing operations of a version. Worker only.

A version declares them in its manifest, so they swap together with the weights. An operation not known here means the
device lacks what the version requires (`incompatible`), found when it is loaded, not at the first request.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wavegate_agent.adapters.tensors import Array
from wavegate_shared.errors import DeviceError, UsageError
from wavegate_shared.manifest import Manifest, Pre
from wavegate_shared.wordpiece import WordPiece

__all__ = ["Post", "Step", "build_post", "build_pre"]

Step = Callable[[dict[str, Array]], None]
"""Changes the named arrays of one request in place."""
Post = Callable[[dict[str, Array]], None]

_MAX_TEXT_CHARS = 100_000


def build_pre(manifest: Manifest, directory: Path) -> list[Step]:
    """The manifest's pre-processing, ready to run. Raises DeviceError `incompatible` or `load_failed`."""
    makers: dict[str, Callable[[Mapping[str, Any], Path], Step]] = {"wordpiece": _wordpiece}
    return [_made(operation, makers, directory) for operation in manifest.pre]


def build_post(manifest: Manifest, directory: Path) -> list[Post]:
    """The manifest's post-processing, ready to run. Raises DeviceError `incompatible` or `load_failed`."""
    makers: dict[str, Callable[[Mapping[str, Any], Path], Post]] = {"softmax": _softmax}
    return [_made(operation, makers, directory) for operation in manifest.post]


def _made(operation: Pre, makers: Mapping[str, Callable[[Mapping[str, Any], Path], Step]], directory: Path) -> Step:
    maker = makers.get(operation.op)
    if maker is None:
        raise DeviceError("incompatible", f"operation {operation.op!r} is not known to this agent")
    try:
        return maker(operation.options, directory)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise DeviceError("load_failed", f"operation {operation.op!r}: {error}") from error


def _wordpiece(options: Mapping[str, Any], directory: Path) -> Step:
    name = str(options["vocab"])
    if "/" in name:
        raise ValueError("vocab is not a plain file name")
    # a vocabulary has one token a line and may hold characters that str.splitlines would split on
    vocab = (directory / name).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    pieces = WordPiece(
        [token.removesuffix("\r") for token in vocab],
        lowercase=bool(options.get("lowercase", True)),
        max_length=int(options["max_length"]),
    )
    source = str(options["input"])
    outputs = list(options["outputs"])
    unknown = set(outputs) - {"input_ids", "attention_mask", "token_type_ids"}
    if unknown:
        raise ValueError(f"unknown outputs {sorted(unknown)}")
    types = {str(key): _integer_type(value) for key, value in dict(options["outputs"]).items()}

    def run(arrays: dict[str, Array]) -> None:
        encoded = pieces.encode_pairs(_pairs(arrays.pop(source), source))
        for output, dtype in types.items():
            arrays[output] = np.array(getattr(encoded, output), dtype=dtype)

    return run


def _pairs(array: Array, name: str) -> list[tuple[str, str]]:
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "OU":
        raise UsageError("invalid", f"input {name}: expected BYTES of shape [n, 2]")
    if array.shape[0] == 0:
        raise UsageError("invalid", f"input {name}: no pairs")
    pairs = [(str(a), str(b)) for a, b in array.tolist()]
    if sum(len(a) + len(b) for a, b in pairs) > _MAX_TEXT_CHARS * max(1, len(pairs) // 8):
        raise UsageError("too_large", f"input {name}: texts are too long")
    return pairs


def _integer_type(name: object) -> type[np.int64] | type[np.int32]:
    if name == "INT64":
        return np.int64
    if name == "INT32":
        return np.int32
    raise ValueError(f"datatype {name!r}")


def _softmax(options: Mapping[str, Any], _directory: Path) -> Post:
    name = str(options["output"])

    def run(arrays: dict[str, Array]) -> None:
        values = arrays[name]
        raised = np.exp(values - values.max(axis=-1, keepdims=True))
        arrays[name] = raised / raised.sum(axis=-1, keepdims=True)

    return run
