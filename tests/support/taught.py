"""A bundle that can be distilled: a tiny BERT, trained here in seconds, with its module, its weights and a train set.

It says whether the first text has more conifers than the second. Most of its vocabulary occurs in no text.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from tests.support import tiny_bert
from wavegate_server.adapters.files.bundles import write_bundle
from wavegate_server.compress.torch_module.export import Names, export
from wavegate_shared.wordpiece import WordPiece

CONIFERS = ["fir", "yew", "pine", "cedar", "larch"]
OTHERS = ["oak", "elm", "ash", "beech", "maple"]
UNSEEN = [f"rare{number}" for number in range(300)]
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *UNSEEN[:150], *CONIFERS, *OTHERS, *UNSEEN[150:]]
MAX_LENGTH = 32
OPTIONS = {"vocab": len(VOCAB), "layers": 3, "hidden": 32, "heads": 4, "ffn": 64, "positions": 64}
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def pairs(count: int, seed: int) -> tuple[Any, Any]:
    """Texts (n, 2) of four words each, and 1 where the first has more conifers."""
    rng = np.random.default_rng(seed)
    words = np.array([*CONIFERS, *OTHERS])
    chosen = rng.integers(0, len(words), (4 * count, 2, 4))
    more = (chosen < len(CONIFERS)).sum(axis=2)
    clear = np.flatnonzero(more[:, 0] != more[:, 1])[:count]
    texts = np.array([[" ".join(words[text]) for text in chosen[at]] for at in clear])
    return texts, (more[clear, 0] > more[clear, 1]).astype(np.int64)


def write_taught_bundle(directory: Path, *, train: int = 800, steps: int = 250, **fields: object) -> Path:
    """Train the teacher and write the bundle; gives `directory`."""
    (directory / "source").mkdir(parents=True)
    module = _trained(steps)
    shutil.copyfile(tiny_bert.__file__, directory / "source" / "net.py")
    safetensors.torch.save_file(module.state_dict(), str(directory / "source" / "weights.safetensors"))
    (directory / "vocab.txt").write_text("\n".join(VOCAB), encoding="utf-8")
    axes = {name: {0: "batch", 1: "width"} for name in INPUTS}
    names = Names(list(INPUTS), ["logits"], {**axes, "logits": {0: "batch"}})
    export(module, _feeds(pairs(4, 1)[0]), names, directory / "model.onnx")
    for name, (count, seed, labelled) in {
        "golden": (120, 2, True), "calib": (160, 3, True), "eval": (500, 4, True), "train": (train, 5, True)
    }.items():  # fmt: skip
        texts, labels = pairs(count, seed)
        arrays = {"input.text": texts, **({"label": labels} if labelled else {})}
        np.savez(directory / f"{name}.npz", allow_pickle=False, **arrays)
    listed = ("model.onnx", "vocab.txt", "golden.npz", "calib.npz", "eval.npz", "train.npz")
    files = {name: directory / name for name in (*listed, "source/net.py", "source/weights.safetensors")}
    write_bundle(directory, {**_document(), **fields}, files)
    return directory


def _trained(steps: int) -> tiny_bert.TinyBert:
    torch.manual_seed(3)
    torch.set_num_threads(1)  # tests share the machine
    module = tiny_bert.build(**OPTIONS)
    texts, labels = pairs(2000, 6)
    feeds = {name: torch.from_numpy(np.concatenate([feed[name] for feed in _feeds(texts)])) for name in INPUTS}
    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3)
    for _ in range(steps):
        rows = torch.randint(0, len(texts), (64,))
        loss = torch.nn.functional.cross_entropy(
            module(*(feeds[name][rows] for name in INPUTS)), torch.from_numpy(labels)[rows]
        )
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    module.eval()
    return module


def _feeds(texts: Any) -> list[dict[str, Any]]:
    encoder = WordPiece(VOCAB, lowercase=True, max_length=MAX_LENGTH)
    made = (encoder.encode_pairs([(str(a), str(b))]) for a, b in texts)
    return [{name: np.array(getattr(each, name), dtype=np.int64) for name in INPUTS} for each in made]


def _document() -> dict[str, object]:
    return {
        "schema": 1,
        "model": "conifers",
        "task": "pair-classification",
        "family": "transformer",
        "licence": "Apache-2.0",
        "model_file": "model.onnx",
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1, 2]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 2]}],
        "pre": [
            {
                "op": "wordpiece",
                "input": "text",
                "vocab": "vocab.txt",
                "max_length": MAX_LENGTH,
                "lowercase": True,
                "outputs": dict.fromkeys(INPUTS, "INT64"),
            }
        ],
        "metric": {"name": "accuracy", "unit": "share", "direction": "up"},
        "golden": {"file": "golden.npz", "floor": 0.8},
        "calib": {"file": "calib.npz"},
        "eval": {"file": "eval.npz"},
        "train": {"file": "train.npz"},
        "source": {"factory": "source/net.py:build", "weights": "source/weights.safetensors", "options": OPTIONS},
    }
