"""Samples on their way into a graph: the same arrays as the device's worker makes, and clear words where they do not fit."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.support.models import image_version, text_version
from wavegate_agent.adapters.serving.preprocess import build_pre, declared
from wavegate_server.compress.measure.samples import load_samples
from wavegate_shared.errors import UsageError
from wavegate_shared.manifest import Manifest, Pre

STEPS = [
    Pre(op="resize", options={"input": "image", "size": [6, 5], "mode": "letterbox", "fill": 9}),
    Pre(op="scale", options={"input": "image", "divisor": 255}),
    Pre(op="normalise", options={"input": "image", "mean": [0.3], "std": [0.2]}),
    Pre(op="transpose", options={"input": "image", "output": "x"}),
]


def on_the_device(manifest: Manifest, directory: Path, golden: dict[str, Any]) -> dict[str, Any]:
    arrays = {name.removeprefix("input."): value for name, value in golden.items() if name.startswith("input.")}
    for step in build_pre(manifest, directory):
        step(arrays)
    return arrays


@pytest.mark.parametrize("kind", ["text", "image"])
def test_the_compressor_and_the_device_see_equal_arrays(kind: str, tmp_path: Path) -> None:
    directory, manifest = text_version(tmp_path, 1) if kind == "text" else image_version(tmp_path, 1)
    if kind == "image":
        manifest = msgspec.structs.replace(manifest, pre=STEPS)
    with np.load(directory / "golden.npz", allow_pickle=False) as archive:
        golden = {name: archive[name] for name in archive.files}
    samples = load_samples(directory / "golden.npz", declared(manifest.pre), directory)
    for row, feed in enumerate(samples.feeds):
        one = {name: value[row : row + 1] for name, value in golden.items()}
        device = on_the_device(manifest, directory, one)
        assert device.keys() == feed.keys()
        for name, array in device.items():
            assert array.dtype == feed[name].dtype
            assert np.array_equal(array, feed[name])


def test_an_operation_that_is_unknown_or_does_not_fit_is_named(tmp_path: Path) -> None:
    directory, _ = image_version(tmp_path, 1)
    for steps, words in (
        ([{"op": "fourier", "input": "image"}], "fourier"),
        ([{"op": "crop", "input": "image", "size": [9, 9]}], "golden.npz, sample 0"),
        ([{"op": "wordpiece", "input": "image"}], "lacks"),
    ):
        with pytest.raises(UsageError, match=words) as refused:
            load_samples(directory / "golden.npz", steps, directory)
        assert refused.value.code == "bundle_invalid"


def test_a_sample_is_prepared_when_it_is_asked_for(tmp_path: Path) -> None:
    """Hundreds of large pictures do not lie in memory at the same time, and a bad one is still named."""
    directory, manifest = image_version(tmp_path, 1)
    samples = load_samples(directory / "golden.npz", declared(manifest.pre), directory)
    assert samples.feeds[0] is not samples.feeds[0]
    assert len(samples.feeds[0:2]) == 2
    assert len(samples.rows([1, 0]).feeds) == 2
    for name, array in samples.rows([1, 0]).feeds[0].items():
        assert np.array_equal(array, samples.feeds[1][name])
    with pytest.raises(IndexError):
        samples.feeds[len(samples.feeds)]
