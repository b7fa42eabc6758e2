"""The verdict on candidates, on samples that no step of the search has seen."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wavegate_server.compress.measure.run import Latency, probe
from wavegate_server.compress.measure.samples import load_samples
from wavegate_server.compress.onnx_graph.magnitude import UNCHANGED, download_bytes, is_pruned
from wavegate_server.compress.search.report import Candidate
from wavegate_server.compress.search.rows import OF_METRIC, missed_items, no_gain, original_row, slower, with_verdicts
from wavegate_server.compress.search.splits import Split
from wavegate_server.compress.search.workbench import Made, Scored, Workbench, against
from wavegate_server.core.compress.bootstrap import drop_from_draws, set_drop
from wavegate_server.core.compress.budget import BudgetItem, Measured, judge
from wavegate_server.core.compress.paired import Drop, paired_drop
from wavegate_server.core.sentences import Sentence
from wavegate_shared.errors import UsageError
from wavegate_shared.metrics import OF_THE_SET, Label, Metric, evaluate

__all__ = ["FIRST_LEVEL", "Judge", "finished"]

FIRST_LEVEL = 0.95
_DRAWS = 400
_SEED = 20


class Judge:
    """Judges candidates of one job beside one original.

    Attributes:
        before: the original on the samples that report.
        notes: what the reader of the report should know.
    """

    def __init__(
        self,
        bench: Workbench,
        budget: Sequence[BudgetItem],
        original: Made,
        entry: str = "",
        split: Split | None = None,
    ) -> None:
        """Scores the original; `split` are the samples to judge on, None for all that report.

        Raises:
            UsageError: `bundle_invalid` when its outputs are not finite.
        """
        self._bench, self._budget, self._original, self._entry = bench, budget, original, entry
        self._split = split or bench.splits.report
        self._downloads: dict[str, int] = {}
        self.before = bench.score(original, self._split)
        if not self.before.score.finite:
            raise UsageError("bundle_invalid", "the original gives outputs that are not finite (NaN or infinite)")
        self._labels: list[Label] | None = None
        self.notes = self._threshold_notes()

    def original(self, latency: dict[str, Latency]) -> Candidate:
        """The original's own row."""
        measured = self._measured(self._original, self.before, latency, FIRST_LEVEL)
        row = replace(Candidate.failed("original", ""), agreement=1.0)
        return original_row(row, measured, self._budget, cpu_ms=latency["original"].cpu_ms)

    def candidate(self, made: Made | None, latency: dict[str, Latency], *, level: float) -> Candidate:
        """A candidate with its verdicts; `level` is the one-sided level of the metric's interval."""
        if made is None:
            raise AssertionError("only candidates that exist are judged")
        try:
            after = self._bench.score(made, self._split)
            measured = self._measured(made, after, latency, level)
        except UsageError as error:
            if error.code in ("invalid", "metric_failed"):  # the user's metric: it fails on the original as well
                raise
            return Candidate.failed(made.name, error.detail)
        row = with_verdicts(_row_of(made), measured, self._budget, cpu_ms=latency[made.name].cpu_ms)
        reason = _refusal(after, row, measured)
        return replace(
            row,
            agreement=_agreement(self.before, after),
            offered=not reason,
            reason=reason or (UNCHANGED if is_pruned(made.name) else _remark(measured)),
        )

    def fits_without_metric(self, made: Made, latency: dict[str, Latency]) -> bool:
        """Whether size, speed and the like are within the budget, whatever the metric says."""
        if made.name not in latency:
            return False
        measured = self._measured(made, None, latency, FIRST_LEVEL)
        items = [item for item in self._budget if item.kind not in (*OF_METRIC, "peak_mb")]
        return all(verdict.met for verdict in judge(items, measured))

    def closest(self, candidates: Sequence[Candidate]) -> Candidate | None:
        """The candidate with the fewest items missed; None where none was measured."""
        rows = [row for row in candidates if row.measured]
        return min(rows, key=lambda row: sum(not verdict.met for verdict in row.verdicts), default=None)

    def _measured(self, made: Made, after: Scored | None, latency: dict[str, Latency], level: float) -> Measured:
        same = after is None or made is self._original
        drop = Drop(0.0, 0.0, 0.0, self._split.samples, 0) if same or after is None else self._drop(after, level)
        old = latency["original"]
        timed = old if is_pruned(made.name) else latency[made.name]  # noise of the clock is no speed
        metric = self._bench.bundle.spec.metric
        sign = -1.0 if metric.direction == "up" else 1.0
        before = self._before_value()
        return Measured(
            size_bytes=made.path.stat().st_size,
            size_before=self._original.path.stat().st_size,
            p50_ms=timed.p50_ms,
            p50_before=old.p50_ms,
            p95_ms=timed.p95_ms,
            peak_mb=after.score.peak_rss_mb if after else 0.0,
            metric=metric,
            value=before + sign * drop.value,
            value_before=before,
            drop=drop,
            download_bytes=self._download(made),
            download_before=self._download(self._original),
        )

    def _download(self, made: Made) -> int:
        """Bytes after zstd; 0 where the budget does not ask for them."""
        if not any(item.kind.startswith("download") for item in self._budget):
            return 0
        if made.digest not in self._downloads:
            self._downloads[made.digest] = download_bytes(made.path)
        return self._downloads[made.digest]

    def _before_value(self) -> float:
        return self.before.score.value if not self._entry else self._custom(self.before)["before"]

    def _drop(self, after: Scored, level: float) -> Drop:
        metric, before = self._bench.bundle.spec.metric, self.before
        samples = self._split.samples
        if self._entry:
            answer = self._custom(after)
            sign = 1.0 if metric.direction == "up" else -1.0
            changed = sum(a != b for a, b in zip(before.score.top1, after.score.top1, strict=True))
            value = sign * (answer["before"] - answer["after"])
            slack = 0.0 if changed else 3.0 / samples
            return drop_from_draws(value, answer["drops"], samples, changed, slack=slack, level=level)
        if metric.name not in OF_THE_SET:
            return paired_drop(metric, before.score.scores, after.score.scores, level=level)
        rng = np.random.default_rng(_SEED)
        draws = (rng.integers(0, samples, samples).tolist() for _ in range(_DRAWS))
        return set_drop(metric, _rows(before.outputs), _rows(after.outputs), self._truth(), draws, level=level)

    def _custom(self, after: Scored) -> dict[str, Any]:
        spec, split = self._bench.bundle.spec, self._split
        files = {"before": str(self.before.outputs), "after": str(after.outputs), "samples": str(split.file)}
        job = {"kind": "custom", "entry": self._entry, "rounds": _DRAWS, "seed": _SEED, "rows": split.rows}
        more = {
            "directory": str(self._bench.bundle.directory),
            "pre": spec.pre,
            "direction": str(spec.metric.direction),
        }
        return probe({**job, **files, **more}, timeout_s=self._bench.timeout_s())

    def _truth(self) -> list[Label]:
        if self._labels is None:
            spec = self._bench.bundle.spec
            samples = load_samples(self._split.file, spec.pre, self._bench.bundle.directory)
            self._labels = (samples if self._split.rows is None else samples.rows(self._split.rows)).label_list()
        return self._labels

    def _threshold_notes(self) -> list[str]:
        """Whether the bundle's own data asks for another threshold than the model's: then the data, not int8, is off."""
        metric, outputs = self._bench.bundle.spec.metric, _rows(self.before.outputs)
        two = all(len(output) == 2 for output in outputs)
        if metric.name not in ("accuracy", "f1") or not two or not self._split.labelled:
            return []
        margins = np.array([output[1] - output[0] for output in outputs])
        truth = np.array([float(label) if isinstance(label, float) else label[0] for label in self._truth()]) == 1
        order = np.argsort(margins)
        ones, zeros = truth[order][::-1].cumsum(), (~truth[order]).cumsum()
        right = [float(truth.mean()), *(zeros[:-1] + ones[::-1][1:]) / len(truth), float((~truth).mean())]
        best, now = float(max(right)), float(((margins > 0) == truth).mean())
        if best - now <= 0.02:
            return []
        auc = evaluate(Metric("auc"), outputs, [float(label) for label in truth])
        return [Sentence("note.threshold", now=f"{now:.3f}", best=f"{best:.3f}", auc=f"{auc:.3f}")]


def finished(first: Candidate, winner: Candidate | None, budget: Sequence[BudgetItem]) -> bool:
    """Whether the original itself is the answer: nothing better was found, and it meets the budget."""
    return winner is None and bool(budget) and all(verdict.met for verdict in first.verdicts)


def _agreement(before: Scored, after: Scored) -> float:
    """Share of the same classes; for a single number out, of answers that are close."""
    if all(len(output) == 1 for output in _rows(before.outputs)):
        return against(before, after, classes=False).agreement
    pairs = list(zip(before.score.top1, after.score.top1, strict=True))
    return sum(a == b for a, b in pairs) / len(pairs)


def _row_of(made: Made) -> Candidate:
    """A candidate's row before anything is judged."""
    row = Candidate.failed(made.name, "")
    return replace(
        row, path=made.path, notes=made.notes, plan=made.plan, float_nodes=made.float_nodes, front=made.front
    )


def _refusal(after: Scored, row: Candidate, measured: Measured) -> str:
    if not after.score.finite:
        return Sentence("candidate.not_finite")
    missed = missed_items(row.verdicts)
    if missed:
        unproven = any("not enough samples" in sentence for sentence in row.words)
        return Sentence("candidate.misses_unproven" if unproven else "candidate.misses", names=missed)
    return Sentence("candidate.no_gain") if no_gain(measured) else ""


def _remark(measured: Measured) -> str:
    if factor := slower(measured):
        return Sentence("candidate.slower", factor=factor)
    if measured.size_bytes >= measured.size_before:
        return Sentence("candidate.not_smaller")
    return ""


def _rows(path: Path) -> list[list[float]]:
    with np.load(path, allow_pickle=False) as archive:
        table, lengths = archive["answers"], archive["answer_lengths"]
    return [row[:length].tolist() for row, length in zip(table, lengths, strict=True)]
