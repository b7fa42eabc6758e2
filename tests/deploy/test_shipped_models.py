"""Every bundle in deploy/models opens, becomes a version by the registry, is small, and keeps the figures its README states."""

import hashlib
import math
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from onnx import TensorProto, numpy_helper
from sqlmodel import select

from wavegate_agent.adapters.serving.pipeline import LoadedVersion
from wavegate_server.adapters.database.connection import open_engine, read, sqlite_url
from wavegate_server.adapters.database.tables import METADATA, Version
from wavegate_server.adapters.files.bundles import open_bundle
from wavegate_server.adapters.files.objects import Objects, file_sha256
from wavegate_server.compress.measure.samples import load_samples
from wavegate_server.core.bundle_spec import BundleSpec
from wavegate_server.services.registry import import_bundle
from wavegate_shared.manifest import decode_manifest
from wavegate_shared.metrics import LESS_IS_BETTER, SCORERS, Direction, Label, Metric, evaluate

MODELS = Path(__file__).parents[2] / "deploy" / "models"
BUNDLES = sorted(path.parent for path in MODELS.glob("*/bundle*/bundle.yaml"))
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MAX_FILE_BYTES = 6_000_000
BATCH = 8  # larger ones leave the processor's cache and take longer
FEWEST_SAMPLES = {"golden": 150, "eval": 1_000}
TOLERANCE = 0.003
"""What another processor's arithmetic may move a figure by: shares of samples, or that share of an error."""

shipped = pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: str(path.relative_to(MODELS)))


@cache
def spec_of(bundle: Path) -> BundleSpec:
    with open_bundle(bundle) as opened:
        return opened.spec


@cache
def session_of(bundle: Path) -> Any:
    model = onnx.load(str(bundle / spec_of(bundle).model_file))
    for tensor in model.graph.initializer if spec_of(bundle).stored == "float16" else ():
        if tensor.data_type == TensorProto.FLOAT16:
            wide = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def answers(bundle: Path, file: str) -> tuple[list[list[float]], list[Label]]:
    """Flat outputs and labels through the operations the bundle declares; inputs of one shape go in together."""
    samples = load_samples(bundle / file, spec_of(bundle).pre, bundle)
    batch = BATCH if spec_of(bundle).recipe == "original" else 1  # dynamic int8 scales activations over a batch
    alike: dict[str, list[int]] = {}
    for at, feed in enumerate(samples.feeds):
        alike.setdefault(str([array.shape for array in feed.values()]), []).append(at)
    outputs: list[list[float]] = [[] for _ in samples.feeds]
    for rows in alike.values():
        for start in range(0, len(rows), batch):
            some = rows[start : start + batch]
            feed = {name: np.concatenate([samples.feeds[at][name] for at in some]) for name in samples.feeds[some[0]]}
            for at, output in zip(some, session_of(bundle).run(None, feed)[0], strict=True):
                outputs[at] = output.reshape(-1).tolist()
    return outputs, samples.label_list()


def readme_figures(bundle: Path) -> dict[str, Any]:
    """The one YAML block of the README that begins with `figures:`."""
    text = (bundle / "README.md").read_text(encoding="utf-8")
    blocks = [block.partition("```")[0] for block in text.split("```yaml\n")[1:]]
    (found,) = [block for block in blocks if block.startswith("figures:")]
    figures: dict[str, Any] = yaml.safe_load(found)["figures"]
    return figures


def stated_metric(name: str, stated: float | dict[str, Any], spec: BundleSpec) -> tuple[Metric, float]:
    """A figure of the README as a metric and its value; a metric with options is written as a mapping with `value`."""
    assert name in SCORERS, f"{name} is no metric"
    if isinstance(stated, dict):
        options = {key: option for key, option in stated.items() if key != "value"}
        return Metric(name=name, **options), stated["value"]
    direction = Direction.DOWN if name in LESS_IS_BETTER else Direction.UP
    return (spec.metric if name == spec.metric.name else Metric(name=name, direction=direction)), stated


def test_the_tasks_are_there() -> None:
    names = {path.parent.name for path in BUNDLES}
    assert {"address-match", "address-match-zh", "signal-inversion"} <= names


@shipped
def test_no_file_is_large_and_the_originals_stay_out(bundle: Path) -> None:
    too_large = {file.name: file.stat().st_size for file in bundle.iterdir() if file.stat().st_size > MAX_FILE_BYTES}
    assert too_large == {}


@shipped
def test_it_becomes_a_version_whose_golden_set_passes_on_a_device(bundle: Path, tmp_path: Path) -> None:
    engine, objects = open_engine(sqlite_url(tmp_path / "db")), Objects(tmp_path / "objects")
    METADATA.create_all(engine)
    ref = import_bundle(engine, objects, bundle, unchecked=False, actor="test", now=NOW)
    with read(engine) as session:
        document = session.exec(select(Version)).one().manifest
    engine.dispose()
    assert (ref.model, ref.number, ref.created) == (spec_of(bundle).model, 1, True)
    manifest = decode_manifest(document)
    for artifact in manifest.artifacts:
        objects.fetch_to(artifact.sha256, tmp_path / artifact.name)
    on_device = LoadedVersion(tmp_path, manifest, hashlib.sha256(document).hexdigest(), intra_threads=1)
    result = on_device.golden(rest=0)
    assert result.passed, f"{result.value} against {result.limit}"
    assert result.samples >= FEWEST_SAMPLES["golden"]
    if spec_of(bundle).recipe == "original":
        assert result.max_difference is not None
        assert result.max_difference <= 2e-3


@pytest.mark.timeout(180)  # some seconds; ten times that on a machine that trains beside it
@shipped
def test_it_keeps_the_figures_of_its_readme(bundle: Path) -> None:
    stated = readme_figures(bundle)
    outputs, labels = answers(bundle, stated.pop("file"))
    assert len(outputs) == stated.pop("samples") >= FEWEST_SAMPLES["eval"]
    assert spec_of(bundle).metric.name in stated
    for name, figure in stated.items():
        metric, value = stated_metric(name, figure, spec_of(bundle))
        measured = evaluate(metric, outputs, labels)
        assert math.isclose(measured, value, abs_tol=TOLERANCE), f"{name}: {measured:.4f}, the README says {value}"


@shipped
def test_no_sample_is_in_two_sets(bundle: Path) -> None:
    spec = spec_of(bundle)
    names = [spec.golden.file, *(each.file for each in (spec.calib, spec.eval) if each is not None)]
    seen: set[bytes] = set()
    for name in names:
        with np.load(bundle / name, allow_pickle=False) as arrays:
            (array,) = [arrays[key] for key in arrays.files if key.startswith("input.")]
        rows = {str(row.tolist()).encode() for row in array}
        assert not rows & seen, f"{name} repeats samples of another set"
        seen |= rows


@pytest.mark.parametrize(
    "bundle", [path for path in BUNDLES if path.name != "bundle"], ids=lambda path: str(path.relative_to(MODELS))
)
def test_a_compressed_bundle_names_the_original_beside_it(bundle: Path) -> None:
    original = bundle.with_name("bundle")
    with open_bundle(original) as opened:
        digest = file_sha256(opened.model_path)
    spec = spec_of(bundle)
    assert spec.parent is not None
    assert spec.parent.sha256 == digest
    (size,) = [row for row in spec.comparison if row.name == "size"]
    assert size.after == pytest.approx((bundle / spec.model_file).stat().st_size / 1e6)


@shipped
def test_the_readme_says_where_it_comes_from(bundle: Path) -> None:
    text = (bundle / "README.md").read_text(encoding="utf-8")
    assert "icence" in text
    assert "synthetic" in text or "simulator" in text or "photo" in text
