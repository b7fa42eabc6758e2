"""Manifests: read back as written, refused when they break a rule."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from wavegate_shared.chunks import Chunk
from wavegate_shared.errors import TrustError
from wavegate_shared.manifest import (
    Artifact,
    Golden,
    Manifest,
    TensorSpec,
    decode_manifest,
    encode_manifest,
    target_path,
)
from wavegate_shared.metrics import Metric

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def artifact(name: str, role: str, size: int = 7) -> Artifact:
    return Artifact(name=name, role=role, sha256="b" * 64, size_bytes=size, chunks=[Chunk("c" * 32, size)])


def manifest(**changes: Any) -> Manifest:
    plain: dict[str, Any] = {
        "schema": 1,
        "model": "address-match",
        "version": 3,
        "created": NOW.isoformat(),
        "task": "pair-classification",
        "artifacts": [artifact("model.onnx", "model"), artifact("golden.npz", "golden")],
        "inputs": [TensorSpec("text", "BYTES", [-1, 2])],
        "outputs": [TensorSpec("logits", "FP32", [-1, 2])],
        "metric": Metric("accuracy"),
        "golden": Golden(artifact="golden.npz", limit=0.9, samples=10),
    }
    return Manifest(**{**plain, **changes})


def test_a_manifest_is_read_back_as_it_was_written() -> None:
    assert decode_manifest(encode_manifest(manifest())) == manifest()
    assert encode_manifest(manifest()) == encode_manifest(decode_manifest(encode_manifest(manifest())))
    assert target_path("address-match", 3) == "address-match/3.json"


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 2},
        {"model": "../x"},
        {"version": 0},
        {"artifacts": [artifact("model.onnx", "model"), artifact("model.onnx", "golden")]},
        {"artifacts": [artifact("../model.onnx", "model"), artifact("golden.npz", "golden")]},
        {"artifacts": [artifact("golden.npz", "golden")]},
        {"artifacts": [artifact("model.onnx", "model", 1 << 20), artifact("golden.npz", "golden")]},
        {"golden": Golden(artifact="absent.npz", limit=0.9, samples=10)},
    ],
    ids=["newer", "path", "zero", "twice", "escape", "no model", "huge chunk", "no golden"],
)
def test_a_manifest_that_breaks_a_rule_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(TrustError) as caught:
        decode_manifest(msgspec.json.encode(manifest(**changes)))
    assert caught.value.code == "manifest_invalid"


def test_chunks_must_add_up_to_the_file() -> None:
    short = Artifact(name="model.onnx", role="model", sha256="b" * 64, size_bytes=9, chunks=[Chunk("c" * 32, 7)])
    with pytest.raises(TrustError, match="add up"):
        decode_manifest(encode_manifest(manifest(artifacts=[short, artifact("golden.npz", "golden")])))
