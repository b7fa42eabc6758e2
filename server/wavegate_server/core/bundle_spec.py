"""What `bundle.yaml` says, as checked structs; and the manifest a bundle becomes. Pure: reading files is `adapters/files/bundles`.

A bundle is how a model comes in, before it is a version: a directory or zip with `bundle.yaml`, the ONNX file, a golden set,
a calibration set and whatever pre-processing needs. docs/concepts.md describes the format for users.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from wavegate_shared.errors import DeviceError, UsageError
from wavegate_shared.manifest import (
    MODEL_NAME,
    Artifact,
    Comparison,
    Golden,
    Manifest,
    Pre,
    Requires,
    Slo,
    TensorSpec,
)
from wavegate_shared.metrics import LESS_IS_BETTER, SCORERS, Metric
from wavegate_shared.operations import parse_post, parse_pre

__all__ = [
    "SOURCE_FOLDER",
    "BundleSpec",
    "GoldenFile",
    "Parent",
    "SampleFile",
    "Source",
    "artifact_roles",
    "build_manifest",
    "file_name_problem",
    "parse_spec",
]

_SCHEMA = 1
SOURCE_FOLDER = "source"
"""The only folder in a bundle: the torch module's files, which stay on the server."""


class GoldenFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The golden set: file, and the limit its metric must keep to (`floor` for up, `ceiling` for down)."""

    file: str
    floor: float | None = None
    ceiling: float | None = None


class SampleFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file that stays on the server.

    `calib`: unlabelled samples, for quantisation; `eval`: labelled samples, for verdicts; `train`: labelled samples, to distil
    with; `plan`: the precision of each node, written by `wavegate compress`.
    """

    file: str


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The torch module the graph was exported from. It never leaves the server, and results of `wavegate compress` drop it.

    Attributes:
        factory: `source/<file>.py:<function>`; the function gives an `nn.Module` that takes the graph's inputs in order and
            returns its outputs in order. It may import other files listed under `source/`.
        weights: `source/<file>`, a state dict: safetensors, or what `torch.load(weights_only=True)` reads.
        options: keyword arguments of the function.
    """

    factory: str
    weights: str
    options: dict[str, Any] = {}

    @property
    def file(self) -> str:
        """The Python file that holds the function."""
        return self.factory.rpartition(":")[0]

    @property
    def function(self) -> str:
        """The function's name in it."""
        return self.factory.rpartition(":")[2]


class Parent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What this bundle was made from: digest of the original's model file as it lies in its bundle."""

    sha256: str


class BundleSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`bundle.yaml`. Unknown fields are refused: a misspelt one would otherwise be lost silently."""

    schema: int
    model: str
    task: str
    model_file: str
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    golden: GoldenFile
    files: dict[str, str]
    metric: Metric
    family: str = ""
    licence: str = ""
    description: str = ""
    stored: str = "float32"
    pre: list[dict[str, Any]] = []
    post: list[dict[str, Any]] = []
    labels: list[str] = []
    calib: SampleFile | None = None
    eval: SampleFile | None = None
    train: SampleFile | None = None
    plan: SampleFile | None = None
    source: Source | None = None
    slo: Slo = Slo()
    requires: Requires = Requires()
    recipe: str = "original"
    parent: Parent | None = None
    comparison: list[Comparison] = []

    @property
    def golden_limit(self) -> float:
        """The golden set's limit in the metric's unit."""
        limit = self.golden.floor if self.metric.direction == "up" else self.golden.ceiling
        if limit is None:
            raise UsageError(
                "bundle_invalid", f"golden needs a {'floor' if self.metric.direction == 'up' else 'ceiling'}"
            )
        return limit


def parse_spec(document: object) -> BundleSpec:
    """Check a parsed `bundle.yaml`.

    Raises:
        UsageError: `bundle_invalid`, naming the first field that is wrong.
    """
    try:
        spec = msgspec.convert(document, BundleSpec)
    except msgspec.ValidationError as error:
        raise UsageError("bundle_invalid", f"bundle.yaml: {error}") from error
    problem = _problem(spec)
    if problem:
        raise UsageError("bundle_invalid", f"bundle.yaml: {problem}")
    return spec


def _problem(spec: BundleSpec) -> str:
    if spec.schema != _SCHEMA:
        return f"schema {spec.schema} is not known here, only {_SCHEMA}"
    if MODEL_NAME.fullmatch(spec.model) is None:
        return f"model {spec.model!r} must be lower-case letters, digits and dashes, at most 63"
    if spec.metric.name not in SCORERS:
        return f"metric {spec.metric.name!r} is not known; known are {', '.join(sorted(SCORERS))}"
    direction = "down" if spec.metric.name in LESS_IS_BETTER else "up"
    if spec.metric.direction != direction:
        return f"metric {spec.metric.name} has direction {direction}, not {spec.metric.direction}"
    if spec.metric.name == "error_bound" and not spec.metric.bound > 0:
        return f"metric error_bound needs a bound above 0, not {spec.metric.bound}"
    if spec.stored not in ("float32", "float16"):
        return f"stored must be float32 or float16, not {spec.stored!r}"
    limit = spec.golden.floor if spec.metric.direction == "up" else spec.golden.ceiling
    if limit is None:
        return f"golden needs a {'floor' if spec.metric.direction == 'up' else 'ceiling'} for metric {spec.metric.name}"
    if problem := _operations_problem(spec):
        return problem
    if spec.source is not None and (problem := _source_problem(spec.source)):
        return problem
    named = [spec.model_file, spec.golden.file, *_server_files(spec), *_pre_files(spec)]
    inside = [name for name in named if "/" in name]
    if inside:
        return (
            f"{', '.join(inside)}: only source and weights lie in {SOURCE_FOLDER}/, other files directly in the bundle"
        )
    named += [spec.source.file, spec.source.weights] if spec.source else []
    unlisted = [name for name in named if name not in spec.files]
    return f"files must list the digest of {', '.join(unlisted)}" if unlisted else ""


def _operations_problem(spec: BundleSpec) -> str:
    """What is wrong with the declared operations: unknown ones, options that cannot work, inputs there are none of."""
    try:
        operations = parse_pre(spec.pre)
    except (DeviceError, ValueError) as error:
        return f"pre {error.detail if isinstance(error, DeviceError) else error}"
    try:
        parse_post(spec.post)
    except (DeviceError, ValueError) as error:
        return f"post {error.detail if isinstance(error, DeviceError) else error}"
    known = {tensor.name for tensor in spec.inputs}
    for operation in operations:
        if operation.input not in known:
            return f"pre operations take the input {operation.input!r}, which is neither declared nor made before"
        known.add(operation.result)
    made = {tensor.name for tensor in spec.outputs}
    lacking = sorted({str(step["output"]) for step in spec.post} - made)
    return f"post operations take the output {', '.join(lacking)}, which is not declared" if lacking else ""


def file_name_problem(name: str) -> str:
    """What is wrong with a file name in a bundle; "" for a plain name, or one below `source/`."""
    parts = name.split("/")
    if "\\" in name or "\0" in name or any(part in ("", ".", "..") for part in parts):
        return f"{name!r} would leave the bundle"
    if len(parts) > 1 and parts[0] != SOURCE_FOLDER:
        return f"{name!r}: files lie directly in the bundle, or in {SOURCE_FOLDER}/"
    return ""


def _source_problem(source: Source) -> str:
    for field, name in (("factory", source.file), ("weights", source.weights)):
        if not name.startswith(f"{SOURCE_FOLDER}/") or file_name_problem(name):
            return f"source.{field} must name a file below {SOURCE_FOLDER}/, not {name!r}"
    if not source.file.endswith(".py") or not source.function.isidentifier():
        return f"source.factory must be {SOURCE_FOLDER}/<file>.py:<function>, not {source.factory!r}"
    return ""


def _server_files(spec: BundleSpec) -> list[str]:
    return [entry.file for entry in (spec.calib, spec.eval, spec.train, spec.plan) if entry is not None]


def _pre_files(spec: BundleSpec) -> list[str]:
    return [str(step["vocab"]) for step in spec.pre if "vocab" in step]


def artifact_roles(spec: BundleSpec) -> dict[str, str]:
    """File name -> role of each file a device needs. Sample sets and `source/` stay on the server."""
    roles = {spec.model_file: "model", spec.golden.file: "golden"}
    roles.update(dict.fromkeys(_pre_files(spec), "vocab"))
    return roles


def build_manifest(
    spec: BundleSpec,
    *,
    version: int,
    created: str,
    artifacts: Sequence[Artifact],
    samples: int,
    facts: Mapping[str, Any],
    parent: int | None,
) -> Manifest:
    """The manifest of a new version.

    Args:
        spec: the checked bundle.
        version: the number the registry gave it.
        created: RFC 3339 UTC.
        artifacts: the files devices fetch, with their chunks.
        samples: number of golden samples.
        facts: `opset` (int) and `domains` (list of str) of the ONNX file.
        parent: version it was made from, if that one is in the registry.
    """
    requires = msgspec.structs.replace(
        spec.requires,
        opset=spec.requires.opset or int(facts["opset"]),
        domains=spec.requires.domains or list(facts["domains"]),
        providers=spec.requires.providers or ["CPUExecutionProvider"],
    )
    return Manifest(
        schema=1,
        model=spec.model,
        version=version,
        created=created,
        task=spec.task,
        family=spec.family,
        licence=spec.licence,
        description=spec.description,
        artifacts=list(artifacts),
        inputs=spec.inputs,
        outputs=spec.outputs,
        pre=[_operation(step) for step in spec.pre],
        post=[_operation(step) for step in spec.post],
        labels=spec.labels,
        metric=spec.metric,
        golden=Golden(artifact=spec.golden.file, limit=spec.golden_limit, samples=samples),
        requires=requires,
        slo=spec.slo,
        recipe=spec.recipe,
        parent=parent,
        comparison=spec.comparison,
    )


def _operation(step: Mapping[str, Any]) -> Pre:
    return Pre(op=str(step["op"]), options={name: value for name, value in step.items() if name != "op"})
