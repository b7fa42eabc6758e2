"""Declared pre- and post-processing."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.support.models import VOCAB, text_version
from wavegate_agent.adapters.serving.preprocess import build_post, build_pre
from wavegate_shared.errors import DeviceError, UsageError
from wavegate_shared.manifest import Manifest, Pre


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    return text_version(tmp_path_factory.mktemp("text"), 1)


def changed(manifest: Manifest, **options: Any) -> Manifest:
    pre = Pre(op="wordpiece", options={**manifest.pre[0].options, **options})
    return msgspec.structs.replace(manifest, pre=[pre])


def test_pairs_become_padded_ids(version: tuple[Path, Manifest]) -> None:
    (step,) = build_pre(version[1], version[0])
    arrays = {"text": np.array([["ab", "c"], ["a", "!"]], dtype=object)}
    step(arrays)
    assert set(arrays) == {"input_ids", "attention_mask", "token_type_ids"}
    assert arrays["input_ids"].shape == (2, 16)
    assert arrays["input_ids"].dtype == np.int64
    names = [VOCAB[int(token)] for token in arrays["input_ids"][0][:6]]
    assert names == ["[CLS]", "a", "##b", "[SEP]", "c", "[SEP]"]
    assert arrays["attention_mask"].sum(axis=1).tolist() == [6, 5]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"vocab": "missing.txt"}, "load_failed"),
        ({"vocab": "../vocab.txt"}, "load_failed"),
        ({"max_length": 1}, "load_failed"),
        ({"outputs": {"words": "INT64"}}, "load_failed"),
        ({"outputs": {"input_ids": "FP32"}}, "load_failed"),
    ],
)
def test_a_declaration_that_cannot_work_is_found_at_load(
    version: tuple[Path, Manifest], options: Any, code: str
) -> None:
    with pytest.raises(DeviceError) as refused:
        build_pre(changed(version[1], **options), version[0])
    assert refused.value.code == code


def test_an_unknown_operation_means_the_device_lacks_something(version: tuple[Path, Manifest]) -> None:
    manifest = msgspec.structs.replace(version[1], pre=[Pre(op="fourier")], post=[Pre(op="nms")])
    with pytest.raises(DeviceError) as refused:
        build_pre(manifest, version[0])
    assert refused.value.code == "incompatible"
    with pytest.raises(DeviceError) as refused:
        build_post(manifest)
    assert refused.value.code == "incompatible"


@pytest.mark.parametrize("array", [np.array([["a", "b", "c"]]), np.array("a"), np.ones((1, 2)), np.empty((0, 2), "U1")])
def test_what_is_not_text_or_pairs_of_text_is_refused(version: tuple[Path, Manifest], array: Any) -> None:
    (step,) = build_pre(version[1], version[0])
    with pytest.raises(UsageError):
        step({"text": array})


def test_softmax_adds_up_to_one(version: tuple[Path, Manifest]) -> None:
    manifest = msgspec.structs.replace(version[1], post=[Pre(op="softmax", options={"output": "logits"})])
    (step,) = build_post(manifest)
    arrays = {"logits": np.array([[1000.0, 1001.0], [0.0, 0.0]], dtype=np.float32)}
    step(arrays)
    assert np.allclose(arrays["logits"], [[0.26894143, 0.7310586], [0.5, 0.5]])
