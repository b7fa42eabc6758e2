"""Writes the bundle directory and the traffic beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from numpy.typing import NDArray

from address_match_recipe.measure import Figures, labels_of
from address_match_recipe.pairs import SPECIAL_WORD, Pair
from address_match_recipe.selection import Selection

__all__ = ["sha256_of", "write_bundle", "write_traffic"]

DESCRIPTION = "Do two address lines name the same place? A two-layer cross-encoder."


def write_bundle(
    folder: Path,
    *,
    stored: onnx.ModelProto,
    vocab: Sequence[str],
    selection: Selection,
    evaluation: Sequence[Pair],
    reference: NDArray[np.float32],
    max_length: int,
    floor: float,
) -> None:
    """Writes every file of the bundle but its README.

    Args:
        folder: Created where missing; files of the same names are replaced.
        stored: The graph with float16 initialisers.
        vocab: Tokens in id order.
        selection: Golden and calibration pairs.
        evaluation: Labelled pairs that stay on the server, for verdicts on candidates.
        reference: (golden, 2) float32 logits of the expanded graph.
        max_length: Tokens a pair is cut to.
        floor: Golden accuracy below which a version is refused.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(stored.SerializeToString(deterministic=True))
    (folder / "vocab.txt").write_text("".join(f"{t}\n" for t in vocab), encoding="utf-8")
    golden = {
        "input.text": _texts(selection.golden),
        "label": labels_of(selection.golden),
        "reference": reference,
    }
    _write_arrays(folder / "golden.npz", golden)
    _write_arrays(folder / "calib.npz", {"input.text": _texts(selection.calib)})
    _write_arrays(folder / "eval.npz", {"input.text": _texts(evaluation), "label": labels_of(evaluation)})
    names = ("model.onnx", "vocab.txt", "golden.npz", "calib.npz", "eval.npz")
    document = _document(max_length, floor)
    document["files"] = {name: sha256_of(folder / name) for name in names}
    _write_yaml(folder / "bundle.yaml", document)


def write_traffic(
    folder: Path,
    pairs: Sequence[Pair],
    kinds: Sequence[str],
    *,
    token_id: int,
    by_kind: dict[str, Figures],
) -> None:
    """Writes `traffic.jsonl` and `traffic.yaml`, which says what is in it.

    Args:
        folder: Where the bundle's directory is.
        pairs: (n,) held-out pairs in the order to send them.
        kinds: (n,) "ordinary" or the special kind.
        token_id: The special kind's token in the bundle's vocabulary.
        by_kind: The shipped model's figures on each kind and on "all".
    """
    lines = [
        json.dumps({"a": pair.a, "b": pair.b, "label": pair.label, "kind": kind})
        for pair, kind in zip(pairs, kinds, strict=True)
    ]
    path = folder / "traffic.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    summary = {
        "file": path.name,
        "sha256": sha256_of(path),
        "pairs": len(pairs),
        "kind_token": SPECIAL_WORD,
        "kind_token_id": token_id,
        "kinds": {
            kind: {
                "pairs": got.n,
                "share": round(got.n / len(pairs), 4),
                "accuracy": round(got.accuracy, 4),
                "auc": round(got.auc, 5),
            }
            for kind, got in by_kind.items()
        },
    }
    _write_yaml(folder / "traffic.yaml", summary)


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in lower-case hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _document(max_length: int, floor: float) -> dict[str, object]:
    wordpiece = {
        "op": "wordpiece",
        "input": "text",
        "vocab": "vocab.txt",
        "max_length": max_length,
        "lowercase": True,
        "outputs": {
            "input_ids": "INT64",
            "attention_mask": "INT64",
            "token_type_ids": "INT64",
        },
    }
    return {
        "schema": 1,
        "model": "address-match",
        "task": "pair-classification",
        "family": "transformer",
        "licence": "Apache-2.0",
        "description": DESCRIPTION,
        "model_file": "model.onnx",
        "stored": "float16",
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


def _write_yaml(path: Path, document: dict[str, object]) -> None:
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    path.write_text(text, encoding="utf-8")
