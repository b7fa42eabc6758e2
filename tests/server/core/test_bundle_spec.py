"""What `bundle.yaml` may say, and the manifest it becomes."""

from typing import Any

import pytest

from tests.support.bundles import document
from wavegate_server.core.bundle_spec import artifact_roles, build_manifest, file_name_problem, parse_spec
from wavegate_shared.chunks import Chunk
from wavegate_shared.errors import UsageError
from wavegate_shared.manifest import Artifact, decode_manifest, encode_manifest

FILES = dict.fromkeys(("model.onnx", "vocab.txt", "golden.npz", "calib.npz", "eval.npz"), "0" * 64)


def fields(**changes: Any) -> dict[str, Any]:
    return {**document("float32", 0.9, "pairs"), "files": FILES, **changes}


def test_devices_get_model_vocabulary_and_golden_set_but_not_the_servers_samples() -> None:
    spec = parse_spec(fields(eval={"file": "eval.npz"}))
    assert artifact_roles(spec) == {"model.onnx": "model", "golden.npz": "golden", "vocab.txt": "vocab"}


def test_a_metric_where_less_is_better_needs_a_ceiling() -> None:
    error = {"name": "mean_absolute_error", "unit": "mm", "direction": "down"}
    spec = parse_spec(fields(metric=error, golden={"file": "golden.npz", "ceiling": 2.5}))
    assert spec.golden_limit == 2.5
    with pytest.raises(UsageError, match="ceiling"):
        parse_spec(fields(metric=error))


@pytest.mark.parametrize(
    "value", [None, [], "text", {"schema": 1}, fields(inputs="text"), fields(files={"model.onnx": 3})]
)
def test_what_does_not_fit_the_schema_is_refused(value: object) -> None:
    with pytest.raises(UsageError) as caught:
        parse_spec(value)
    assert caught.value.code == "bundle_invalid"


def test_the_manifest_says_what_the_bundle_and_the_file_say() -> None:
    spec = parse_spec(fields(requires={"memory_mb": 64}))
    artifacts = [
        Artifact(name=name, role=role, sha256="a" * 64, size_bytes=5, chunks=[Chunk("b" * 32, 5)])
        for name, role in artifact_roles(spec).items()
    ]
    manifest = build_manifest(
        spec,
        version=7,
        created="2026-01-01T00:00:00+00:00",
        artifacts=artifacts,
        samples=64,
        facts={"opset": 17, "domains": ["", "com.microsoft"]},
        parent=6,
    )
    assert decode_manifest(encode_manifest(manifest)) == manifest
    assert (manifest.version, manifest.parent, manifest.golden.limit, manifest.golden.samples) == (7, 6, 0.9, 64)
    assert manifest.requires.memory_mb == 64
    assert (manifest.requires.opset, manifest.requires.domains) == (17, ["", "com.microsoft"])
    assert manifest.pre[0].op == "wordpiece"
    assert manifest.pre[0].options["vocab"] == "vocab.txt"


SOURCE = {"factory": "source/net.py:build", "weights": "source/w.safetensors"}
SOURCED = {**FILES, "train.npz": "0" * 64, "source/net.py": "0" * 64, "source/w.safetensors": "0" * 64}


def test_the_torch_module_and_its_training_set_stay_on_the_server() -> None:
    spec = parse_spec(fields(source={**SOURCE, "options": {"width": 8}}, train={"file": "train.npz"}, files=SOURCED))
    assert spec.source is not None
    assert (spec.source.file, spec.source.function, spec.source.options) == ("source/net.py", "build", {"width": 8})
    assert set(artifact_roles(spec)) == {"model.onnx", "golden.npz", "vocab.txt"}


@pytest.mark.parametrize(
    "changes",
    [
        {"source": {**SOURCE, "factory": "net.py:build"}},
        {"source": {**SOURCE, "factory": "source/../net.py:build"}},
        {"source": {**SOURCE, "factory": "source/net.py"}},
        {"source": {**SOURCE, "factory": "source/net.py:1"}},
        {"source": {**SOURCE, "factory": "os:system"}},
        {"source": {**SOURCE, "weights": "/etc/passwd"}},
        {"source": {**SOURCE, "weights": "source//etc/passwd"}},
        {"source": {**SOURCE, "weights": "source/absent.pt"}},
        {"source": {**SOURCE, "code": "x"}},
        {"source": "source/net.py:build"},
        {"train": {"file": "absent.npz"}},
        {"train": {"file": "source/net.py"}},
        {"model_file": "source/net.py"},
    ],
)
def test_a_source_outside_its_folder_or_not_listed_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        parse_spec(fields(**{"files": SOURCED, **changes}))
    assert caught.value.code == "bundle_invalid"


@pytest.mark.parametrize("name", ["", "/a", "../a", "source/../../a", "a/b", "source\\a", "a\0b", "source/", "./a"])
def test_names_that_would_leave_the_bundle(name: str) -> None:
    assert file_name_problem(name)


@pytest.mark.parametrize("name", ["model.onnx", "source/net.py", "source/nets/net.py", "two words.npz"])
def test_names_that_stay_in_it(name: str) -> None:
    assert not file_name_problem(name)


@pytest.mark.parametrize(
    "metric",
    [
        {"name": "mean_absolute_error", "unit": "mm", "direction": "up"},
        {"name": "accuracy", "unit": "share", "direction": "down"},
        {"name": "error_bound", "bound": 0},
        {"name": "beauty"},
    ],
)
def test_a_metric_that_would_judge_the_wrong_way_is_refused(metric: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="metric"):
        parse_spec(fields(metric=metric, golden={"file": "golden.npz", "floor": 0.5, "ceiling": 0.5}))
