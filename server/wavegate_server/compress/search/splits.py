"""Which samples choose a candidate and which judge it: never the same ones.

choose   the calibration set (no labels: compared with the original's outputs); too small: the golden set where the
         bundle has an eval set, else every second golden sample
report   the eval set, else the golden set, else the other half of it
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wavegate_server.adapters.files.bundles import Bundle
from wavegate_server.adapters.files.objects import file_sha256
from wavegate_server.compress.measure.samples import count_samples
from wavegate_server.core.sentences import Sentence
from wavegate_shared.errors import UsageError

__all__ = ["Split", "Splits", "make_splits"]

MIN_CHOOSE = 16


@dataclass(frozen=True, slots=True)
class Split:
    """Some samples of one file. `rows` None means all."""

    file: Path
    rows: list[int] | None
    samples: int
    labelled: bool
    digest: str


@dataclass(frozen=True, slots=True)
class Splits:
    """The samples that choose, that judge, and that calibrate; and the rule in words."""

    choose: Split
    report: Split
    calib: Split
    words: str


def make_splits(bundle: Bundle) -> Splits:
    """The splits of a bundle's samples.

    Raises:
        UsageError: `bundle_invalid`: files that cannot be read, or samples to judge by that have no labels.
    """
    spec = bundle.spec
    golden = _whole(bundle.path(spec.golden.file))
    report = _whole(bundle.path(spec.eval.file)) if spec.eval else golden
    if not report.labelled:
        raise UsageError(
            "bundle_invalid",
            f"{report.file.name} has no labels, so {spec.metric.name} cannot be told; `wavegate model import` of the model"
            " and inputs alone makes a bundle that is judged by agreement",
        )
    calib = _whole(bundle.path(spec.calib.file)) if spec.calib else None
    if calib and calib.samples >= MIN_CHOOSE:
        return Splits(calib, report, calib, Sentence("note.calib", chosen=calib.samples, judged=report.samples))
    if spec.eval:
        words = Sentence("note.golden", chosen=golden.samples, judged=report.samples)
        return Splits(golden, report, calib or golden, words)
    if golden.samples < 2:
        return Splits(golden, golden, calib or golden, Sentence("note.one_sample"))
    choose, judge = _halves(golden)
    words = Sentence("note.halves", chosen=choose.samples, judged=judge.samples)
    return Splits(choose, judge, calib or choose, words)


def _whole(file: Path) -> Split:
    samples, labelled = count_samples(file)
    return Split(file, None, samples, labelled, file_sha256(file))


def _halves(golden: Split) -> tuple[Split, Split]:
    """Every second sample of each label, so that both halves have all classes."""
    order = list(range(golden.samples))
    if golden.labelled:
        with np.load(golden.file, allow_pickle=False) as archive:
            labels = archive["label"]
        order.sort(key=lambda at: (str(labels[at]), at))
    parts = (sorted(order[0::2]), sorted(order[1::2]))
    first, second = (Split(golden.file, rows, len(rows), golden.labelled, golden.digest) for rows in parts)
    return first, second
