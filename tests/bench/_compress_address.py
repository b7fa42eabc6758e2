"""Makes the address teacher's bundle for the compress bench: the MiniLM-sized original, its module, its sets, unseen pairs.

    python -m tests.bench._compress_address CACHE OUT

Needs what `deploy/models/address-match/make.py` needs. The teacher is taken from CACHE or from that script's cache, else
trained by it. Splits are disjoint by entity: train from `train`, the samples that choose (labelled) from `val`, golden and
eval from `bench`, unseen from `heldout`.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

_MODELS = Path(__file__).parents[2] / "deploy" / "models"
_RECIPE = _MODELS / "address-match"
_MADE = _MODELS / ".cache" / "address-match" / "teacher.pt"
CALIB, GOLDEN, EVAL, UNSEEN = 600, 300, 2000, 2500
_FACTORY = """

def build(**sizes: int) -> CrossEncoder:
    \"\"\"The module of these sizes.\"\"\"
    return CrossEncoder(Shape(**sizes))
"""


def main(cache: Path, out: Path) -> None:
    """Write `out`/bundle and `out`/unseen.npz."""
    sys.path.insert(0, str(_RECIPE))
    import onnx
    from address_match_recipe import bert, graph  # type: ignore[import-not-found]
    from address_match_recipe.pairs import febrl_splits  # type: ignore[import-not-found]
    from safetensors.torch import save_file

    from wavegate_server.adapters.files.bundles import write_bundle

    model, vocab = _teacher(cache)
    folder = out / "bundle"
    (folder / "source").mkdir(parents=True, exist_ok=True)
    onnx.save(graph.export(model), str(folder / "model.onnx"))
    (folder / "vocab.txt").write_text("\n".join(vocab), encoding="utf-8")
    code = Path(bert.__file__).read_text(encoding="utf-8")
    (folder / "source" / "net.py").write_text(code + _FACTORY, encoding="utf-8")
    save_file(model.state_dict(), str(folder / "source" / "weights.safetensors"))

    splits = {name: split.pairs for name, split in febrl_splits().items()}
    _save(folder / "train.npz", splits["train"])
    _save(folder / "calib.npz", splits["val"][:CALIB])
    _save(folder / "golden.npz", splits["bench"][:GOLDEN])
    _save(folder / "eval.npz", splits["bench"][GOLDEN : GOLDEN + EVAL])
    _save(out / "unseen.npz", splits["heldout"][:UNSEEN])
    sets = ("train.npz", "calib.npz", "golden.npz", "eval.npz")
    names = ("model.onnx", "vocab.txt", *sets, "source/net.py", "source/weights.safetensors")
    write_bundle(folder, _document(len(vocab)), {name: folder / name for name in names})


def _teacher(cache: Path) -> tuple[Any, list[str]]:
    import make  # type: ignore[import-not-found]

    cache.mkdir(parents=True, exist_ok=True)
    if not (cache / "teacher.pt").exists() and _MADE.exists():
        shutil.copyfile(_MADE, cache / "teacher.pt")
    shop = make.Workshop(cache, None)
    return shop.teacher(), shop.old_vocab


def _save(path: Path, pairs: list, *, labelled: bool = True) -> None:  # type: ignore[type-arg]
    text = np.array([[pair.a, pair.b] for pair in pairs])
    arrays = {"input.text": text}
    if labelled:
        arrays["label"] = np.array([pair.label for pair in pairs], dtype=np.int64)
    np.savez(path, allow_pickle=False, **arrays)


def _document(vocab: int) -> dict[str, object]:
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
        "train": {"file": "train.npz"},
        "source": {
            "factory": "source/net.py:build",
            "weights": "source/weights.safetensors",
            "options": {"vocab": vocab, "layers": 6},
        },
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
