"""Inside the distilling subprocess: what could be smaller, the teacher's answers, and one student. Needs torch.

A student is the module with a smaller structure and a smaller vocabulary, taught by the answers of the original (fp32,
frozen), exported as an fp32 graph. Quantising comes after, as for any other graph: the order is cut, distil, quantise.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from wavegate_server.compress.distil import channels, training, transformer
from wavegate_server.compress.measure.samples import Feed, Samples, count_samples, load_samples
from wavegate_server.compress.torch_module import export, load
from wavegate_server.core.bundle_spec import Source
from wavegate_server.core.compress.structures import Facts, Structure
from wavegate_server.core.compress.vocabulary import Trimmed, trim
from wavegate_shared.errors import UsageError
from wavegate_shared.metrics import Label, Metric, evaluate

__all__ = ["make", "propose", "teach"]

Say = Callable[[dict[str, Any]], None]
KINDS: dict[str, Any] = {"transformer": transformer, "channels": channels}
"""Module of each kind of structure: `propose(module, facts)` and `apply(module, structure, batches)`."""
_MOST_SAMPLES = 20_000
"""Of the train set: more would cost the teacher longer than they teach in the steps there are."""
_IMPORTANCE_SAMPLES, _IMPORTANCE_BATCH = 512, 16
_ALIKE, _ALIKE_SAMPLES = 0.05, 64
"""Largest difference of torch module and graph, over the size of the outputs: weights may be stored with 16 bits."""
_MISFITS = (RuntimeError, TypeError, IndexError, ValueError, KeyError)


@dataclasses.dataclass(frozen=True, slots=True)
class _Pace:
    """How students of a kind learn. Attributes: batch, rate, epochs, most and least steps."""

    batch: int
    rate: float
    epochs: int
    most: int
    least: int


_PACES = {
    "transformer": _Pace(64, 3e-4, 6, 1000, 150),
    "channels": _Pace(128, 2e-3, 6, 2400, 150),
}


def propose(job: dict[str, Any], _: Say) -> dict[str, Any]:
    """The structures worth a try, light to heavy."""
    module = _module(job)
    trimmed = _trimmed(job)
    words = _words(job)
    longest = int(words["max_length"]) if words else 0
    facts = Facts(tokens=len(trimmed.tokens) if trimmed else 0, positions=longest)
    found = [each for kind in KINDS.values() for each in kind.propose(module, facts)]
    return {"structures": [dataclasses.asdict(each) for each in found], "tokens": facts.tokens}


def teach(job: dict[str, Any], _: Say) -> dict[str, Any]:
    """Write the original module's answers on the train set, when it is the original at all ("choose", "before" as in `make`)."""
    started = time.monotonic()
    torch.set_num_threads(job["threads"])
    module = _module(job)
    if "before" in job:
        _is_the_original(job, module)
    samples = _train(job, Path(job["directory"]))
    answers = _answers(module, samples.feeds)
    if not np.isfinite(answers).all():
        raise UsageError("bundle_invalid", "the torch module gives answers that are not finite (NaN or infinite)")
    np.save(job["target"], answers)
    return {"samples": len(answers), "seconds": round(time.monotonic() - started, 1)}


def _is_the_original(job: dict[str, Any], module: Any) -> None:
    """Refuse a source that computes something else than the bundle's graph: its students would be of another model."""
    held = _samples(job, Path(job["choose"]), Path(job["directory"]), job["choose_rows"])
    got = _answers(module, held.feeds[:_ALIKE_SAMPLES], exact=True).astype(np.float64)
    with np.load(job["before"], allow_pickle=False) as archive:
        wanted = archive["outputs"][:_ALIKE_SAMPLES]
    flat = got.reshape(len(got), -1)
    size = max(float((wanted**2).sum()), 1e-12)
    error = float(np.sqrt(((flat - wanted) ** 2).sum() / size)) if flat.shape == wanted.shape else math.inf
    if not error <= _ALIKE:
        raise UsageError(
            "bundle_invalid", f"source and weights are not those of the bundle's graph: outputs differ by {error:.0%}"
        )


def make(job: dict[str, Any], say: Say) -> dict[str, Any]:
    """One student: cut, taught, exported.

    The job's own fields: "structure"; "teacher": npy; "temperature", "alpha", "seed", "seconds", "goal", "steps" (or null);
    "classes"; "metric"; "choose", "choose_rows", "before": npz of the original's outputs there; "before_value": its metric
    there, null without labels; "graph": the original, for its names and axes; "target": folder that gets `student.onnx` and the
    smaller vocabulary.
    """
    started = time.monotonic()
    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    structure = Structure(**job["structure"])
    folder = Path(job["target"])
    module = _module(job)
    whole = sum(each.numel() for each in module.parameters())
    wide = _train(job, Path(job["directory"]))
    soft = np.load(job["teacher"], allow_pickle=False)
    labels = _labels(wide, soft, classes=job["classes"])
    small = _cut(module, structure, wide.feeds, soft)
    place = _smaller_vocabulary(job, small, structure, folder)
    groups = training.group(wide.feeds if place is None else _train(job, place).feeds)
    del module
    check = _Check(job, place or Path(job["directory"]))
    start = check(small.eval())
    plan = _plan(job, structure.kind, len(soft), time.monotonic() - started)
    trained = training.fit(small, groups, soft, labels, plan, check, lambda at: say(dataclasses.asdict(at)))
    if not math.isfinite(trained.loss):
        raise UsageError("bundle_invalid", "the training diverged: its loss is not a number")
    names = export.Names.of(Path(job["graph"]))
    parity = export.export(small.eval().float(), check.feeds[:8], names, folder / "student.onnx")
    return {
        "stopped": trained.stopped,
        "steps": trained.steps,
        "loss": round(trained.loss, 5),
        "drop": trained.best.drop,
        "drop_untrained": start.drop,
        "parameters": sum(each.numel() for each in small.parameters()),
        "parameters_before": whole,
        "parity": parity,
        "vocabulary": place is not None,
        "train_seconds": round(trained.seconds, 1),
        "seed": job["seed"],
        "torch": torch.__version__,
    }


def _plan(job: dict[str, Any], kind: str, samples: int, used: float) -> training.Plan:
    pace = _PACES[kind]
    batch = min(pace.batch, max(8, samples // 8))
    steps = job["steps"] or min(pace.most, max(pace.least, pace.epochs * samples // batch))
    return training.Plan(
        steps=steps,
        batch=batch,
        rate=pace.rate,
        temperature=job["temperature"],
        alpha=job["alpha"],
        seed=job["seed"],
        seconds=max(1.0, job["seconds"] - used),
        goal=job["goal"],
        classes=job["classes"],
    )


def _module(job: dict[str, Any]) -> Any:
    return load.load(Path(job["directory"]), msgspec.convert(job["source"], Source))


def _train(job: dict[str, Any], directory: Path) -> "_Set":
    """The train set, or as many of its samples as are worth their time."""
    file = Path(job["directory"]) / job["train"]
    count, _ = count_samples(file)
    rows = np.sort(np.random.default_rng(0).permutation(count)[:_MOST_SAMPLES]).tolist()
    return _samples(job, file, directory, None if count <= _MOST_SAMPLES else rows)


def _samples(job: dict[str, Any], file: Path, directory: Path, rows: list[int] | None = None) -> "_Set":
    samples = load_samples(file, job["pre"], directory)
    samples = samples if rows is None else samples.rows(rows)
    lacking = [name for name in job["inputs"] if name not in samples.feeds[0]]
    if lacking:
        raise UsageError("bundle_invalid", f"{file.name} lacks the graph's input {', '.join(lacking)}")
    feeds = [{name: feed[name] for name in job["inputs"]} for feed in samples.feeds]
    return _Set(Samples(feeds, samples.labels), file)


@dataclasses.dataclass(frozen=True, slots=True)
class _Set:
    samples: Samples
    path: Path

    @property
    def feeds(self) -> list[Feed]:
        return list(self.samples.feeds)


def _answers(module: Any, feeds: list[Feed], *, exact: bool = False) -> NDArray[np.float32]:
    try:
        return training.answers(module, training.group(feeds), exact=exact)
    except _MISFITS as error:
        detail = " ".join(str(error).split())[:200]
        raise UsageError("bundle_invalid", f"the train set does not fit the torch module: {detail}") from error


def _labels(train: _Set, soft: NDArray[np.float32], *, classes: bool) -> NDArray[Any] | None:
    """Labels as the loss takes them. Raises UsageError `bundle_invalid`: they do not fit what the teacher answers."""
    labels = train.samples.labels
    if len(soft) != len(train.feeds):
        raise UsageError("bundle_invalid", f"{len(train.feeds)} train samples, {len(soft)} answers of the teacher")
    if labels is None:
        return None
    if not classes:
        if labels.size != soft.size:
            raise UsageError(
                "bundle_invalid", f"train labels are {list(labels.shape)}, the module answers {list(soft.shape)}"
            )
        return labels.astype(np.float32)
    whole = labels.astype(np.int64)
    if labels.ndim != 1 or (whole != labels).any() or whole.min() < 0 or whole.max() >= soft.shape[-1]:
        raise UsageError("bundle_invalid", f"train labels must be classes from 0 to {soft.shape[-1] - 1}, one a sample")
    return whole


def _cut(module: Any, structure: Structure, feeds: list[Feed], soft: NDArray[np.float32]) -> Any:
    """The smaller module, its parts ranked on some training samples."""
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(len(feeds))[:_IMPORTANCE_SAMPLES])
    groups = training.group([feeds[row] for row in rows])
    chosen = [
        (feed, torch.from_numpy(soft[rows[places]])) for places, feed in training.batches(groups, _IMPORTANCE_BATCH)
    ]
    try:
        return KINDS[structure.kind].apply(module, structure, chosen)
    except _MISFITS as error:
        detail = " ".join(str(error).split())[:200]
        raise UsageError("bundle_invalid", f"{structure.name} cannot be cut out of this module: {detail}") from error


def _words(job: dict[str, Any]) -> dict[str, Any] | None:
    return next((step for step in job["pre"] if step["op"] == "wordpiece"), None)


def _trimmed(job: dict[str, Any]) -> Trimmed | None:
    """The vocabulary that the texts at hand use; None where the bundle has none."""
    step, directory = _words(job), Path(job["directory"])
    if step is None:
        return None
    vocab = (directory / str(step["vocab"])).read_text(encoding="utf-8").splitlines()
    texts: set[str] = set()
    for file in job["texts"]:
        with np.load(file, allow_pickle=False) as archive:
            texts.update(archive[f"input.{step['input']}"].astype(str).reshape(-1).tolist())
    return trim(vocab, sorted(texts), lowercase=bool(step.get("lowercase", True)))


def _smaller_vocabulary(job: dict[str, Any], small: Any, structure: Structure, folder: Path) -> Path | None:
    """Trim the student's embedding and write its vocabulary; gives the folder it is in, None where nothing is trimmed."""
    step, trimmed = _words(job), _trimmed(job) if structure.sizes.get("tokens") else None
    if step is None or trimmed is None:
        return None
    before = len((Path(job["directory"]) / str(step["vocab"])).read_text(encoding="utf-8").splitlines())
    transformer.keep_tokens(small, trimmed.ids, before=before, positions=int(step["max_length"]))
    (folder / str(step["vocab"])).write_text("\n".join(trimmed.tokens), encoding="utf-8")
    return folder


class _Check:
    """The student beside the original on the samples that choose."""

    def __init__(self, job: dict[str, Any], directory: Path) -> None:
        held = _samples(job, Path(job["choose"]), directory, job["choose_rows"])
        self.feeds = held.feeds
        self._groups = training.group(held.feeds)
        self._labels: list[Label] = held.samples.label_list()
        self._metric = msgspec.convert(job["metric"], Metric)
        self._value, self._classes = job["before_value"], job["classes"]
        with np.load(job["before"], allow_pickle=False) as archive:
            self._before = archive["outputs"]

    def __call__(self, module: Any) -> training.Check:
        got = training.answers(module, self._groups, exact=True).astype(np.float64)
        flat = got.reshape(len(got), -1)
        size = max(float((self._before**2).sum()), 1e-12)
        error = float(np.sqrt(((flat - self._before) ** 2).sum() / size))
        if self._value is not None:
            sign = 1 if self._metric.direction == "up" else -1
            value = evaluate(self._metric, flat.tolist(), self._labels)
            return training.Check(sign * (self._value - value), error)
        drop = float((flat.argmax(1) != self._before.argmax(1)).mean()) if self._classes else error
        return training.Check(drop, error)
