"""A bundle of a torch module: its files gathered, exported in a subprocess without network, compared, and kept as source.

The weights are read as data only and kept as safetensors. The bundle then holds everything `wavegate compress` needs to
prune and distil. Nothing is written unless the graph computes what the module does.
"""

import importlib.util
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wavegate_server.compress.intake.frameworks import refuse_foreign
from wavegate_server.compress.intake.onnx_file import Bare, Given, check_free, make_bundle, parse_metric
from wavegate_server.compress.intake.source_files import gather
from wavegate_server.compress.process.children import run_child
from wavegate_server.core.bundle_spec import SOURCE_FOLDER
from wavegate_shared.errors import UsageError

__all__ = ["Exported", "TorchModule", "import_torch"]

_WEIGHTS = f"{SOURCE_FOLDER}/weights.safetensors"
_OPSETS = range(13, 21)


@dataclass(frozen=True, slots=True)
class TorchModule:
    """What is to be imported.

    Attributes:
        named: `file.py:function` or `module:function`, giving an `nn.Module`.
        weights: its state dict.
        options: keyword arguments of the function.
        opset: of the graph.
        outputs: their names; empty: `output`, or `output_0`, `output_1`, ...
        dynamic: axes of inputs that may vary, besides the batch.
    """

    named: str
    weights: Path
    options: dict[str, Any] = field(default_factory=dict)
    opset: int = 17
    outputs: list[str] = field(default_factory=list)
    dynamic: dict[str, list[int]] = field(default_factory=dict)

    @property
    def stem(self) -> str:
        """The name of the file or module, without folders and packages."""
        place = self.named.rpartition(":")[0]
        return Path(place).stem if place.endswith(".py") else place.rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class Exported:
    """The bundle, and how near the graph is to the module.

    Attributes:
        bare: the bundle.
        parity: `max_abs`, `scale`, `agreement`, `samples`.
        fence: what kept the network away from the module.
    """

    bare: Bare
    parity: dict[str, float]
    fence: str


def import_torch(
    module: TorchModule, given: Given, out: Path, *, working: Path | None = None, tell: Callable[[str], None] = print
) -> Exported:
    """Write a bundle of a torch module to `out`.

    Args:
        module: the module and how to export it.
        given: samples and what they are judged by.
        out: directory that does not exist yet or is empty.
        working: where modules and files are looked for; default the working directory.
        tell: is told what is being done.

    Raises:
        UsageError: `setup`: torch is missing; `weights_unsafe`, `format_unsupported`, `bundle_invalid`, `invalid`, `conflict`.
    """
    _check(module, out)
    if given.metric:
        parse_metric(given.metric)
    with tempfile.TemporaryDirectory(prefix="wavegate-torch-") as scratch:
        folder = Path(scratch)
        gathered = gather(module.named, folder, working or Path.cwd())
        name = f"{SOURCE_FOLDER}/given{module.weights.suffix}"
        shutil.copyfile(module.weights, folder / name)
        tell("exporting in a process without network")
        job = {
            "folder": str(folder),
            "source": {"factory": gathered.factory, "weights": name, "options": module.options},
            "inputs": str(given.inputs),
            "target": str(folder / "model.onnx"),
            "weights": str(folder / _WEIGHTS),
            "opset": module.opset,
            "outputs": module.outputs,
            "dynamic": module.dynamic,
        }
        answer = run_child("wavegate_server.compress.intake.torch_program", job)
        tell("running the graph on all samples")
        source = {"factory": gathered.factory, "weights": _WEIGHTS, "options": module.options}
        files = {**gathered.files, _WEIGHTS: folder / _WEIGHTS}
        given = replace(given, name=given.name or module.stem)
        bare = make_bundle(folder / "model.onnx", given, out, source=source, source_files=files)
        notes = [*gathered.notes, *answer["notes"], *bare.notes]
        return Exported(replace(bare, notes=notes), answer["parity"], answer["fence"])


def _check(module: TorchModule, out: Path) -> None:
    check_free(out)
    if not module.weights.is_file() or module.weights.is_symlink():
        refuse_foreign(module.weights, weights=True)
        raise UsageError("bundle_invalid", f"no weights file {module.weights.name}")
    refuse_foreign(module.weights, weights=True)
    if module.opset not in _OPSETS:
        raise UsageError("invalid", f"opset {module.opset}: quantising needs 13, the exporter goes to {_OPSETS[-1]}")
    if any(importlib.util.find_spec(name) is None for name in ("torch", "safetensors")):
        raise UsageError("setup", "torch is not installed here: pip install -e '.[distil]', or ./server[distil]")
