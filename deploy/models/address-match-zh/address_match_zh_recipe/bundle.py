"""Chooses the pairs that go into the bundle, and writes it and the traffic beside it."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from numpy.typing import NDArray

from address_match_zh_recipe.graph import INPUTS
from address_match_zh_recipe.measure import labels_of
from address_match_zh_recipe.pairs import Pair

__all__ = ["CALIB", "EVALUATION", "TRAFFIC", "Selection", "choose", "write_bundle", "write_traffic"]

GOLDEN_NEAR, GOLDEN_RANDOM, CALIB = 100, 100, 96
NEAR_SHARE = 0.15
EVALUATION, TRAFFIC = 2_000, 1_000
DESCRIPTION = "Do two Chinese address lines name the same door? A character-level matcher."


@dataclass(frozen=True, slots=True)
class Selection:
    """Disjoint pairs of the bench counties: the golden set and the calibration set."""

    golden: list[Pair]
    calib: list[Pair]


def choose(pool: Sequence[Pair], margins: NDArray[np.float32], seed: int) -> Selection:
    """Half the golden set from the pairs nearest to the decision boundary, as many of each label; the rest at random."""
    rng = random.Random(seed)
    order = sorted(range(len(pool)), key=lambda i: abs(float(margins[i])))
    nearest = order[: round(NEAR_SHARE * len(pool))]
    near: list[int] = []
    for label in (0, 1):
        near += rng.sample([i for i in nearest if pool[i].label == label], GOLDEN_NEAR // 2)
    drawn = rng.sample(sorted(set(order) - set(near)), GOLDEN_RANDOM + CALIB)
    golden = near + drawn[:GOLDEN_RANDOM]
    rng.shuffle(golden)
    return Selection([pool[i] for i in golden], [pool[i] for i in drawn[GOLDEN_RANDOM:]])


def write_bundle(
    folder: Path,
    *,
    model: onnx.ModelProto,
    vocab: Sequence[str],
    selection: Selection,
    reference: NDArray[np.float32],
    evaluation: Sequence[Pair],
    max_length: int,
    floor: float,
) -> None:
    """Writes every file of the bundle but its README.

    Args:
        folder: Created where missing; files of the same names are replaced.
        model: The fp32 graph.
        vocab: Tokens in id order.
        selection: Golden and calibration pairs.
        reference: (golden, 2) float32 logits of the graph.
        evaluation: Labelled pairs that stay on the server.
        max_length: Tokens a pair is cut to.
        floor: Golden accuracy below which a version is refused.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocab), encoding="utf-8")
    golden, calib = selection.golden, selection.calib
    _write_arrays(
        folder / "golden.npz", {"input.text": _texts(golden), "label": labels_of(golden), "reference": reference}
    )
    _write_arrays(folder / "calib.npz", {"input.text": _texts(calib)})
    _write_arrays(folder / "eval.npz", {"input.text": _texts(evaluation), "label": labels_of(evaluation)})
    document = _document(max_length, floor)
    names = ("model.onnx", "vocab.txt", "golden.npz", "calib.npz", "eval.npz")
    document["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    (folder / "bundle.yaml").write_text(text, encoding="utf-8")


def write_traffic(path: Path, pairs: Sequence[Pair]) -> None:
    """Writes `traffic.jsonl`: pairs of the test counties, none of them in the bundle, in the order to send them."""
    lines = [json.dumps(asdict(pair), ensure_ascii=False) for pair in pairs]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _document(max_length: int, floor: float) -> dict[str, object]:
    wordpiece = {
        "op": "wordpiece",
        "input": "text",
        "vocab": "vocab.txt",
        "max_length": max_length,
        "lowercase": True,
        "outputs": dict.fromkeys(INPUTS, "INT64"),
    }
    return {
        "schema": 1,
        "model": "address-match-zh",
        "task": "pair-classification",
        "family": "transformer",
        "licence": "Apache-2.0",
        "description": DESCRIPTION,
        "model_file": "model.onnx",
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1, 2]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 2]}],
        "pre": [wordpiece],
        "post": [],
        "labels": ["different", "same"],
        "metric": {"name": "accuracy", "unit": "share", "direction": "up"},
        "golden": {"file": "golden.npz", "floor": floor},
        "calib": {"file": "calib.npz"},
        "eval": {"file": "eval.npz"},
        "slo": {"p95_ms": None, "peak_memory_mb": None},
        "requires": {"memory_mb": 64},
    }


def _texts(pairs: Sequence[Pair]) -> NDArray[np.str_]:
    return np.array([(pair.a, pair.b) for pair in pairs], dtype=np.str_)


def _write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    np.savez_compressed(path, **arrays)
