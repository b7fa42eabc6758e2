"""Pre-processing from a file, for a bundle made of bare files: the operations, the files they name, the inputs they take."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from wavegate_shared.errors import DeviceError, UsageError
from wavegate_shared.operations import Operation, parse_pre
from wavegate_shared.preprocess import build_pre

__all__ = ["Declared", "read_declared"]

_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Declared:
    """Operations before the graph. Attributes: pre, as in `bundle.yaml`; files they name, by that name."""

    pre: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)

    def inputs(self, graph: Sequence[str]) -> list[str]:
        """What a client sends: what the operations take, and inputs of the graph that none of them makes."""
        made: set[str] = set()
        sent: dict[str, None] = {}
        for step, operation in zip(self.pre, parse_pre(self.pre), strict=True):
            if operation.input not in made:
                sent[operation.input] = None
            made |= _made(step, operation)
        return [*sent, *(name for name in graph if name not in made and name not in sent)]

    def first(self, arrays: dict[str, Any], place: str) -> dict[str, Any]:
        """What the operations make of these arrays. Raises UsageError `bundle_invalid`: they do not fit."""
        made = dict(arrays)
        try:
            for step in build_pre(self.pre, lambda name: self.files[name].read_bytes()):
                step(made)
        except (DeviceError, UsageError) as error:
            raise UsageError("bundle_invalid", f"{place}, pre-processing: {error.detail}") from error
        except (ValueError, OSError) as error:
            raise UsageError("bundle_invalid", f"{place}, pre-processing: {error}") from error
        return made


def read_declared(file: Path) -> Declared:
    """The operations in a YAML or JSON file: a list, or an object with the list as `pre`.

    Raises:
        UsageError: `bundle_invalid`: not such a file, an operation that is not known or cannot work, a file that is not there.
    """
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise UsageError(
                "bundle_invalid", f"{file.name} is larger than {_MOST_BYTES >> 20} MB: no list of operations"
            )
        held = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(
            "bundle_invalid", f"{file.name} is no YAML or JSON: {' '.join(str(error).split())[:200]}"
        ) from error
    steps = held.get("pre") if isinstance(held, dict) and set(held) == {"pre"} else held
    if not isinstance(steps, list) or not steps or not all(isinstance(step, dict) for step in steps):
        raise UsageError(
            "bundle_invalid", f"{file.name}: write a list of operations, as [{{op: scale, input: image, divisor: 255}}]"
        )
    try:
        parse_pre(steps)
    except (DeviceError, ValueError) as error:
        detail = error.detail if isinstance(error, DeviceError) else str(error)
        raise UsageError("bundle_invalid", f"{file.name}: {detail}") from error
    names = {str(step["vocab"]) for step in steps if "vocab" in step}
    for name in names:
        if not (file.parent / name).is_file():
            raise UsageError("bundle_invalid", f"{file.name} names {name}, which is not beside it")
    return Declared(steps, {name: file.parent / name for name in sorted(names)})


def _made(step: dict[str, Any], operation: Operation) -> set[str]:
    """What an operation leaves: its result, or the arrays it is split into."""
    return {operation.result, *step.get("outputs", {})}
