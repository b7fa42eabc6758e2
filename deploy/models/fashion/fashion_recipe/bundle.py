"""The original as a bundle: graph, declared pre-processing, sample sets, and what `wavegate compress` needs to distil it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from fashion_recipe import net
from fashion_recipe.data import LABELS, Split, Splits
from fashion_recipe.training import MEAN, STD, accuracy, prepared
from wavegate_server.adapters.files.bundles import write_bundle
from wavegate_shared.preprocess import build_pre

__all__ = ["PRE", "OriginalFigures", "declared", "logits_of_graph", "write_original"]

OPSET = 17
PRE: list[dict[str, Any]] = [
    {"op": "scale", "input": "image", "divisor": 255},
    {"op": "normalise", "input": "image", "mean": [MEAN], "std": [STD]},
    {"op": "transpose", "input": "image"},
]
"""What `training.prepared` does, as declared operations."""
CALIB, TRAIN = 1_000, 24_000
FLOOR_MARGIN = 0.03  # nine of 300 answers below the original's own accuracy
_RUN_BATCH = 100

OriginalFigures = dict[str, float]


def declared(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Images through the bundle's declared operations, as the device runs them."""
    arrays: dict[str, Any] = {"image": images}
    for step in build_pre(PRE, _no_files):
        step(arrays)
    made: NDArray[np.float32] = arrays["image"]
    return made


def logits_of_graph(graph: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(n, 10) float32 from the ONNX file, pre-processing included."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    starts = range(0, len(images), _RUN_BATCH)
    return np.concatenate([session.run(None, {"image": declared(images[at : at + _RUN_BATCH])})[0] for at in starts])


def write_original(model: nn.Module, splits: Splits, out: Path) -> OriginalFigures:
    """Write `out`/bundle and `out`/unseen.npz.

    Returns:
        Accuracies of the graph: `golden`, `eval`, `unseen`.
    """
    folder = out / "bundle"
    (folder / "source").mkdir(parents=True, exist_ok=True)
    _export(model, folder / "model.onnx")
    shutil.copyfile(Path(net.__file__), folder / "source" / "net.py")
    weights = {name: value.detach().contiguous().clone() for name, value in model.state_dict().items()}
    save_file(weights, str(folder / "source" / "weights.safetensors"))
    logits = {
        name: logits_of_graph(folder / "model.onnx", split.images)
        for name, split in (("golden", splits.golden), ("eval", splits.eval), ("unseen", splits.unseen))
    }
    _save(folder / "calib.npz", splits.val[:CALIB])
    _save(folder / "golden.npz", splits.golden, reference=logits["golden"])
    _save(folder / "eval.npz", splits.eval)
    _save(folder / "train.npz", splits.train[:TRAIN])
    _save(out / "unseen.npz", splits.unseen)
    figures = {name: accuracy(each, getattr(splits, name).labels) for name, each in logits.items()}
    names = ["model.onnx", "calib.npz", "golden.npz", "eval.npz", "train.npz"]
    names += ["source/net.py", "source/weights.safetensors"]
    write_bundle(folder, _document(round(figures["golden"] - FLOOR_MARGIN, 4)), {name: folder / name for name in names})
    return figures


def _no_files(name: str) -> bytes:
    raise FileNotFoundError(name)


def _export(model: nn.Module, target: Path) -> None:
    model = model.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    example = prepared(np.zeros((2, 28, 28), np.uint8))
    torch.onnx.export(
        model,
        (example,),
        str(target),
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=OPSET,
        dynamo=False,  # the tracing exporter: smaller graphs, which the quantisers know
    )


def _save(path: Path, split: Split, **more: NDArray[Any]) -> None:
    np.savez_compressed(path, allow_pickle=False, **{"input.image": split.images, "label": split.labels, **more})


def _document(floor: float) -> dict[str, object]:
    return {
        "schema": 1,
        "model": "fashion",
        "task": "image-classification",
        "family": "cnn",
        "licence": "MIT",
        "description": "Which of ten kinds of clothing is on a 28 x 28 grey photo? ResNet-18.",
        "model_file": "model.onnx",
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, 28, 28]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, len(LABELS)]}],
        "pre": PRE,
        "labels": list(LABELS),
        "metric": {"name": "accuracy", "unit": "share", "direction": "up"},
        "golden": {"file": "golden.npz", "floor": floor},
        "calib": {"file": "calib.npz"},
        "eval": {"file": "eval.npz"},
        "train": {"file": "train.npz"},
        "source": {"factory": "source/net.py:build", "weights": "source/weights.safetensors"},
        "requires": {"memory_mb": 64},
    }
