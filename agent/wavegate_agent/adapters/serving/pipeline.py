"""One loaded version, from request tensors to output arrays: pre-processing, session, post-processing, golden set.

Everything a version needs to answer stands in its directory and swaps with it. Worker only.
"""

import hashlib
import mmap
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wavegate_agent.adapters.serving.ort import Session
from wavegate_agent.adapters.serving.preprocess import build_post, build_pre, declared
from wavegate_agent.adapters.serving.tensors import DTYPES, Array, datatype_of, to_array
from wavegate_agent.core.oip import Tensor
from wavegate_agent.core.onnx_scan import scan
from wavegate_shared.errors import DeviceError, TrustError, UsageError, WavegateError
from wavegate_shared.manifest import Artifact, Manifest, TensorSpec, decode_manifest
from wavegate_shared.metrics import SCORERS, at_least_as_good, evaluate
from wavegate_shared.preprocess import decoded_inputs
from wavegate_shared.wire import GoldenResult

__all__ = ["LoadedVersion", "load_version"]

_WARM_RUNS = 12
_WARM_SHAPES = 6
_MAX_GOLDEN_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class _GoldenSet:
    inputs: dict[str, Array]
    labels: Array
    reference: Array | None

    @property
    def samples(self) -> int:
        return int(self.labels.shape[0])

    def sample(self, index: int) -> dict[str, Array]:
        at = index % self.samples
        return {name: array[at : at + 1] for name, array in self.inputs.items()}


class LoadedVersion:
    """A version that can answer. `infer` may be called from several threads.

    Attributes:
        manifest: what it is.
        digest: SHA-256 of the manifest file, hex.
    """

    def __init__(self, directory: Path, manifest: Manifest, digest: str, *, intra_threads: int) -> None:
        self.manifest = manifest
        self.digest = digest
        self._pre = build_pre(manifest, directory)
        self._post = build_post(manifest)
        self._files = decoded_inputs(declared(manifest.pre))
        if manifest.metric.name not in SCORERS:
            raise DeviceError("incompatible", f"metric {manifest.metric.name!r} is not known to this agent")
        self._golden = _read_golden(directory / manifest.golden.artifact, manifest)
        model = directory / manifest.artifact("model").name
        _scan_file(model, manifest)
        self._session = Session(model, intra_threads=intra_threads, providers=manifest.requires.providers)
        self._api_inputs = {spec.name: spec for spec in manifest.inputs}
        self.output_names = self._session.outputs

    @property
    def samples(self) -> int:
        """Samples in the golden set."""
        return self._golden.samples

    def infer(self, tensors: tuple[Tensor, ...]) -> dict[str, Array]:
        """Answer one request given the API's inputs or the graph's.

        Returns:
            Output arrays by name, in the graph's order.

        Raises:
            UsageError: `invalid` or `too_large`: the client's mistake.
            DeviceError: `inference_failed`.
        """
        names = {tensor.name for tensor in tensors}
        arrays = {tensor.name: to_array(tensor, raw=tensor.name in self._files) for tensor in tensors}
        if names == self._api_inputs.keys() and not self._is_ready(tensors):
            for tensor in tensors:
                _check_spec(self._api_inputs[tensor.name], tensor)
            arrays = self._prepared(arrays)
        elif names != self._session.inputs.keys():
            raise UsageError("invalid", f"inputs {sorted(names)}; expected {sorted(self._api_inputs)}")
        return self._finished(self._session.run(self._checked(arrays)))

    def _is_ready(self, tensors: tuple[Tensor, ...]) -> bool:
        """Whether these are the graph's own inputs where API and graph call them the same: told by their types."""
        if not self._pre or self._session.inputs.keys() != self._api_inputs.keys():
            return False
        specs = self._api_inputs
        return any(tensor.datatype != specs[tensor.name].datatype for tensor in tensors) and all(
            DTYPES.get(tensor.datatype) == self._session.inputs[tensor.name] for tensor in tensors
        )

    def run_sample(self, index: int) -> list[Array]:
        """The graph's outputs for one golden sample, pre-processing included."""
        return self._session.run(self._checked(self._prepared(self._golden.sample(index))))

    def golden_inputs(self, index: int) -> dict[str, Array]:
        """One golden sample as the API takes it, before pre-processing; `index` counts round and round."""
        return self._golden.sample(index)

    def warm(self) -> None:
        """Run golden samples until the first-run costs of several shapes are paid. Raises DeviceError."""
        shapes: set[tuple[int, ...]] = set()
        runs = 0
        for index in range(self._golden.samples):
            arrays = self._checked(self._prepared(self._golden.sample(index)))
            shape = tuple(side for name in sorted(arrays) for side in arrays[name].shape)
            if shape in shapes and runs >= _WARM_RUNS // 2:
                continue
            shapes.add(shape)
            self._session.run(arrays)
            runs += 1
            if runs >= _WARM_RUNS or len(shapes) >= _WARM_SHAPES:
                break

    def golden(self, *, rest: float) -> GoldenResult:
        """Run the whole golden set, sample by sample as live traffic comes.

        Args:
            rest: pause after each sample as a multiple of its run time (0 when the scheduler holds us back anyway).
        """
        answers: list[list[float]] = []
        furthest = 0.0
        finite = True
        for index in range(self._golden.samples):
            start = time.monotonic()
            outputs = self.run_sample(index)
            finite = finite and all(np.isfinite(array).all() for array in outputs if array.dtype.kind == "f")
            furthest = max(furthest, self._difference(outputs[0], index))
            scored = self._finished(outputs)[self.output_names[0]]
            answers.append(scored.reshape(-1).astype(float).tolist())
            time.sleep(rest * (time.monotonic() - start))
        return self._judged(answers, furthest, finite=finite)

    def _judged(self, answers: list[list[float]], furthest: float, *, finite: bool) -> GoldenResult:
        limit = self.manifest.golden.limit
        labels = self._golden.labels.reshape(len(answers), -1).astype(float).tolist()
        truth = [label[0] if len(label) == 1 else label for label in labels]
        value = evaluate(self.manifest.metric, answers, truth) if finite and answers else None
        return GoldenResult(
            passed=value is not None and at_least_as_good(self.manifest.metric, value, limit),
            value=value,
            limit=limit,
            samples=len(answers),
            max_difference=furthest if finite and self._golden.reference is not None else None,
        )

    def _difference(self, output: Array, index: int) -> float:
        if self._golden.reference is None:
            return 0.0
        expected = self._golden.reference[index].reshape(-1)
        got = output.reshape(-1)
        if got.shape != expected.shape:
            raise DeviceError("golden_failed", f"output of {got.size} values, the reference has {expected.size}")
        return float(np.abs(got.astype(np.float64) - expected).max(initial=0.0))

    def _prepared(self, arrays: dict[str, Array]) -> dict[str, Array]:
        ready = dict(arrays)
        for step in self._pre:
            step(ready)
        return ready

    def _finished(self, outputs: list[Array]) -> dict[str, Array]:
        named = dict(zip(self.output_names, outputs, strict=True))
        for step in self._post:
            step(named)
        return named

    def _checked(self, arrays: dict[str, Array]) -> dict[str, Array]:
        if arrays.keys() != self._session.inputs.keys():
            raise UsageError("invalid", f"the graph takes {sorted(self._session.inputs)}, not {sorted(arrays)}")
        for name, dtype in self._session.inputs.items():
            array, sides = arrays[name], self._session.shapes[name]
            if dtype is not np.object_ and array.dtype != dtype:
                raise UsageError("invalid", f"input {name}: {datatype_of(array)} is not what the graph takes")
            fits = all(side in (-1, got) for side, got in zip(sides, array.shape, strict=False))
            if len(sides) != array.ndim or not fits:
                raise UsageError("invalid", f"input {name}: shape {list(array.shape)} does not fit {sides}")
        return arrays


def load_version(
    directory: Path, *, intra_threads: int, check_digests: bool, expected: str | None = None
) -> LoadedVersion:
    """Load what a version's directory holds, and warm it.

    Args:
        directory: holds `manifest.json` and the artifacts.
        intra_threads: threads of one run.
        check_digests: compare every artifact with the manifest first: a flipped byte often still gives a model that
            runs, with other numbers.
        expected: digest the manifest file must have, None to accept any.

    Raises:
        DeviceError: `incompatible`, `model_rejected`, `memory_short` or `load_failed`.
    """
    try:
        raw = (directory / "manifest.json").read_bytes()
        manifest = decode_manifest(raw)
    except (OSError, TrustError) as error:
        raise DeviceError("load_failed", f"manifest.json: {error}") from error
    digest = hashlib.sha256(raw).hexdigest()
    if expected not in (None, digest):
        raise DeviceError("load_failed", "the manifest is not the one that was asked for")
    for artifact in manifest.artifacts:
        _check_artifact(directory, artifact, hashed=check_digests)
    try:
        version = LoadedVersion(directory, manifest, digest, intra_threads=intra_threads)
        version.warm()
    except MemoryError as error:
        raise DeviceError("memory_short", "not enough memory to load the version") from error
    except UsageError as error:
        raise DeviceError("load_failed", f"golden inputs: {error.detail}") from error
    except WavegateError as error:
        if error.code == "inference_failed":
            raise DeviceError("load_failed", f"first run: {error.detail}") from error
        raise
    return version


def _check_artifact(directory: Path, artifact: Artifact, *, hashed: bool) -> None:
    try:
        with (directory / artifact.name).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest() if hashed else artifact.sha256
    except OSError as error:
        raise DeviceError("load_failed", f"{artifact.name}: {error.strerror}") from error
    if (size, digest) != (artifact.size_bytes, artifact.sha256):
        raise DeviceError("load_failed", f"{artifact.name} is not the signed file (digest_mismatch)")


def _scan_file(path: Path, manifest: Manifest) -> None:
    refused = None
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
            memoryview(data) as view,
        ):
            try:
                scan(view, domains=manifest.requires.domains)
            except DeviceError as error:
                refused = (error.code, error.detail)  # not the error: its traceback holds views of the map
    except (OSError, ValueError) as error:
        raise DeviceError("model_rejected", f"{path.name}: {error}") from error
    if refused is not None:
        raise DeviceError(*refused)


def _read_golden(path: Path, manifest: Manifest) -> _GoldenSet:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(_members(archive))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DeviceError("load_failed", f"golden set: {error}") from error
    inputs = {spec.name: arrays.get(f"input.{spec.name}") for spec in manifest.inputs}
    labels = arrays.get("label")
    missing = [name for name, array in inputs.items() if array is None]
    if missing or labels is None or labels.ndim == 0 or labels.shape[0] == 0:
        raise DeviceError("load_failed", f"golden set: no samples for {missing or 'label'}")
    reference = arrays.get("reference")
    known = {name: _as_text(array) for name, array in inputs.items() if array is not None}
    lengths = {array.shape[0] for array in (*known.values(), labels, *([] if reference is None else [reference]))}
    if len(lengths) != 1:
        raise DeviceError("load_failed", "golden set: arrays of different length")
    return _GoldenSet(known, labels, reference)


def _members(archive: "np.lib.npyio.NpzFile") -> Iterator[tuple[str, Array]]:
    total = sum(info.file_size for info in archive.zip.infolist()) if archive.zip else 0
    if total > _MAX_GOLDEN_BYTES:
        raise ValueError(f"{total} bytes unpacked, at most {_MAX_GOLDEN_BYTES}")
    for name in archive.files:
        yield name, archive[name]


def _as_text(array: Array) -> Array:
    return array.astype(object) if array.dtype.kind == "U" else array


def _check_spec(spec: TensorSpec, tensor: Tensor) -> None:
    fits = len(spec.shape) == len(tensor.shape) and all(
        side in (-1, got) for side, got in zip(spec.shape, tensor.shape, strict=True)
    )
    if tensor.datatype != spec.datatype or not fits:
        got = f"{tensor.datatype} {list(tensor.shape)}"
        raise UsageError("invalid", f"input {spec.name}: {got}, expected {spec.datatype} {spec.shape}")
