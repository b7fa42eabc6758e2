"""A model in another runtime's format: converted in an environment of its own, loaded again, compared, labelled "export only".

Our agents run ONNX Runtime, so an export is a file for somebody else's runtime: it is never published, signed or gated. What
can be run here is run here on the bundle's own samples; what cannot (TensorRT, Core ML) is refused with the command that makes
it where the tool exists. Converters pull other versions of large libraries, so each lives in a virtual environment in the
cache, made on request, and works without a network.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from wavegate_server.adapters.files.bundles import Bundle, open_bundle
from wavegate_server.compress.process.children import run_child
from wavegate_shared.errors import UsageError

__all__ = ["LABEL", "REFUSED", "TARGETS", "Exported", "environment_of", "export"]

LABEL = "export only"
_SAMPLES = 16
_TIMEOUT_S = 900.0
_MEMORY_BYTES = 16 << 30  # foreign runtimes map far more than they use; their resident memory is not the model's limit
_INSTALL_TIMEOUT_S = 1800.0
_FOREIGN = Path(__file__).with_name("foreign")


@dataclass(frozen=True, slots=True)
class _Worker:
    module: str
    packages: tuple[str, ...]
    size: str

    @property
    def script(self) -> Path:
        """The worker's file: another environment's Python does not know our packages."""
        return _FOREIGN / f"{self.module.rpartition('.')[2]}.py"


_WORKERS = {
    "openvino": _Worker(
        "wavegate_server.compress.exports.foreign.openvino_worker", ("openvino==2026.4.1", "numpy"), "280 MB"
    ),
    "tflite": _Worker(
        "wavegate_server.compress.exports.foreign.tflite_worker",
        ("litert-torch==0.10.0", "torch==2.13.0", "numpy"),
        "2.1 GB",
    ),
}
REFUSED = {
    "tensorrt": (
        "TensorRT builds an engine for the one GPU it runs on, and there is none here to build or check it; on that machine:"
        " trtexec --onnx=model.onnx --saveEngine=model.plan"
    ),
    "coreml": (
        "Core ML models can only be run, and so only be checked, on Apple's systems, and its converter takes no ONNX; on a Mac"
        " with the torch module: python -c 'import coremltools as ct, torch; ct.convert(torch.jit.trace(module, x),"
        ' inputs=[ct.TensorType(shape=x.shape)]).save("model.mlpackage")\''
    ),
}
TARGETS = (*_WORKERS, *REFUSED)


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and how it compares with the original on the same samples.

    Attributes:
        agreement: share of samples with the same largest output.
        difference: largest absolute difference of an output, `largest`: largest absolute output of the original.
        p50_ms, p50_before_ms: in the other runtime and in ONNX Runtime, one thread each, one after the other: a hint.
    """

    target: str
    directory: Path
    files: list[str]
    size_bytes: int
    size_before: int
    tool: str
    samples: int
    agreement: float
    difference: float
    largest: float
    p50_ms: float
    p50_before_ms: float
    notes: list[str] = field(default_factory=list)


def export(
    path: Path,
    target: str,
    out: Path,
    *,
    inputs: Path | None = None,
    install: bool = False,
    environments: Path,
    progress: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Convert the bundle or ONNX file at `path`, run the result, compare, and write it to `out`.

    Args:
        path: a bundle, or an ONNX file with `inputs` to compare on.
        target: one of `TARGETS`.
        out: directory that does not exist yet or is empty; nothing is left in it on failure.
        inputs: npz with an array for each graph input.
        install: make the converter's environment where there is none: a download.
        environments: where environments are kept.
        progress: gets a sentence at each step.

    Raises:
        UsageError: `invalid` (no such target), `setup` (a tool that cannot be here, or is not installed yet), `conflict` (`out`
            is in use), `bundle_invalid` (it does not convert, or does not run).
    """
    if target in REFUSED:
        raise UsageError("setup", REFUSED[target])
    if target not in _WORKERS:
        raise UsageError("invalid", f"no export to {target!r}; there are {', '.join(TARGETS)}")
    if out.exists() and any(out.iterdir()):
        raise UsageError("conflict", f"{out} is not empty; name a new directory")
    is_file = path.suffix == ".onnx"
    if target == "tflite" and is_file:
        raise UsageError(
            "bundle_invalid", "TFLite is made from a torch module, and an ONNX file holds none: give a bundle"
        )
    if is_file and inputs is None:
        raise UsageError("invalid", f"{path.name} alone cannot be checked: name some of its inputs with --inputs X.npz")
    opened: AbstractContextManager[Bundle | None] = nullcontext(None) if is_file else open_bundle(path)
    with opened as bundle, tempfile.TemporaryDirectory(prefix="wavegate-export-") as scratch:
        if target == "tflite" and (bundle is None or bundle.spec.source is None):
            raise UsageError(
                "bundle_invalid",
                "TFLite is made from a torch module, and this bundle has no `source`: export the original's",
            )
        python = _python(target, environments, install=install, progress=progress)
        folder = Path(scratch)
        reference = _reference(path, bundle, inputs, folder, progress)
        return _converted(target, python, bundle, reference, folder, out, progress)


def environment_of(target: str, environments: Path) -> Path:
    """Where a converter's environment is or would be; its name changes with the packages it holds."""
    packages = " ".join([*_WORKERS[target].packages, sys.version.split()[0]])
    return environments / f"{target}-{hashlib.sha256(packages.encode()).hexdigest()[:12]}"


def _python(target: str, environments: Path, *, install: bool, progress: Callable[[str], None]) -> Path:
    place, worker = environment_of(target, environments), _WORKERS[target]
    python = place / "bin" / "python"
    if (place / "ready").is_file():
        return python
    if not install:
        raise UsageError(
            "setup", f"the converter is not installed; again with --install ({worker.size}, kept in {place})"
        )
    progress(f"installing {', '.join(worker.packages)} into an environment of their own ({worker.size})")
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    venv.create(place, with_pip=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *worker.packages]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise UsageError("setup", f"installing the converter took more than {_INSTALL_TIMEOUT_S:.0f} s") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1][:300]
        raise UsageError("setup", f"the converter could not be installed: {last}")
    (place / "ready").touch()
    return python


def _reference(
    path: Path, bundle: Bundle | None, inputs: Path | None, folder: Path, progress: Callable[[str], None]
) -> dict[str, Any]:
    progress("running the original")
    model = folder / "original.onnx"
    place: dict[str, Any]
    if bundle is None:
        samples = _prefixed(inputs, folder / "samples.npz")
        place = {"model": str(path.resolve()), "samples": str(samples), "directory": str(folder), "pre": []}
    else:
        from wavegate_server.adapters.files import onnx_files

        spec = bundle.spec
        onnx_files.prepare(bundle.model_path, model, stored=spec.stored)
        samples = bundle.path(spec.golden.file)
        place = {"model": str(model), "samples": str(samples), "directory": str(bundle.directory), "pre": spec.pre}
    files = {"feeds": str(folder / "feeds.npz"), "reference": str(folder / "reference.npz")}
    job = {**place, **files, "rows": _SAMPLES}
    return {**run_child("wavegate_server.compress.exports.reference_program", job), "model": place["model"]}


def _prefixed(inputs: Path | None, target: Path) -> Path:
    """The user's npz in the form of a bundle's samples."""
    try:
        with np.load(str(inputs), allow_pickle=False) as archive:
            arrays = {
                f"input.{name.removeprefix('input.')}": archive[name] for name in archive.files if name != "label"
            }
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError("bundle_invalid", f"{inputs} is no npz of plain arrays: {error}") from error
    np.savez(target, allow_pickle=False, **arrays)
    return target


def _converted(
    target: str,
    python: Path,
    bundle: Bundle | None,
    reference: dict[str, Any],
    folder: Path,
    out: Path,
    progress: Callable[[str], None],
) -> Exported:
    made, source = folder / "made", Path(reference["model"])
    made.mkdir()
    if target == "tflite" and bundle is not None:
        progress("exporting the torch module as a program")
        source = folder / "program.pt2"
        job = {
            "directory": str(bundle.directory),
            "source": msgspec.to_builtins(bundle.spec.source),
            "target": str(source),
        }
        feeds = {"feeds": str(folder / "feeds.npz"), "inputs": reference["inputs"]}
        run_child(
            "wavegate_server.compress.exports.torch_program",
            {**job, **feeds},
            timeout_s=_TIMEOUT_S,
            memory_bytes=_MEMORY_BYTES,
        )
    progress(f"converting to {target}, and running the result")
    command = [str(python), "-I", str(_WORKERS[target].script)]
    job = {"command": command, "source": str(source), "target": str(made), "inputs": reference["inputs"]}
    files = {"feeds": str(folder / "feeds.npz"), "got": str(folder / "got.npz")}
    answer = run_child(
        "wavegate_server.compress.exports.fenced_program",
        {**job, **files},
        timeout_s=_TIMEOUT_S,
        memory_bytes=_MEMORY_BYTES,
    )
    agreement, difference, largest, samples = _compared(folder / "reference.npz", folder / "got.npz")
    out.mkdir(parents=True, exist_ok=True)
    for name in answer["files"]:
        shutil.copyfile(made / name, out / name)
    return Exported(
        target, out, answer["files"], sum((out / name).stat().st_size for name in answer["files"]),
        Path(reference["model"]).stat().st_size, answer["tool"], samples, agreement, difference, largest,
        answer["p50_ms"], reference["p50_ms"], answer["notes"],
    )  # fmt: skip


def _compared(reference: Path, got: Path) -> tuple[float, float, float, int]:
    """Agreement of the first output, largest difference, largest output, samples compared."""
    with np.load(reference, allow_pickle=False) as old, np.load(got, allow_pickle=False) as new:
        names: Sequence[str] = new.files
        if not names:
            raise UsageError("bundle_invalid", "the converted model gave no output to compare")
        pairs = {name: (_floats(old[name]), _floats(new[name])) for name in names if name in old.files}
    if len(pairs) != len(names) or any(a.shape != b.shape for a, b in pairs.values()):
        raise UsageError("bundle_invalid", "the converted model gives outputs of another number or shape")
    if not all(np.isfinite(new).all() for _, new in pairs.values()):
        raise UsageError("bundle_invalid", "the converted model gives outputs that are not finite (NaN or infinite)")
    first = [pair for name, pair in pairs.items() if name.endswith(".0")]
    same = [bool(a.argmax() == b.argmax()) for a, b in first]
    difference = max(float(np.abs(a - b).max(initial=0.0)) for a, b in pairs.values())
    largest = max(float(np.abs(a).max(initial=0.0)) for a, _ in pairs.values())
    return sum(same) / len(same), difference, largest, len(first)


def _floats(array: NDArray[Any]) -> NDArray[np.float64]:
    return array.astype(np.float64).reshape(-1)
