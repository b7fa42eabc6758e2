"""Fashion-MNIST from Debian's package `dataset-fashion-mnist`, split once and for all.

The package is looked for where it installs; where it is not installed, it is downloaded by apt and unpacked into the cache,
which needs no root.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["LABELS", "PACKAGE", "Split", "Splits", "load"]

PACKAGE = "dataset-fashion-mnist"
LABELS = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_INSTALLED = Path("/usr/share/datasets/fashion-mnist")
_MAGIC = {2051: 3, 2049: 1}  # images have three dimensions, labels one
_TRAIN, _VAL = 57_000, 3_000
_GOLDEN, _EVAL = 300, 3_000


@dataclass(frozen=True, slots=True)
class Split:
    """Images (n, 28, 28) uint8, 0 = black background, and labels (n,) int64 in 0..9."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __getitem__(self, rows: slice) -> Split:
        """Only these rows."""
        return Split(self.images[rows], self.labels[rows])


@dataclass(frozen=True, slots=True)
class Splits:
    """No image is in two of them.

    Attributes:
        train: 57,000 images of the set's training part.
        val: its other 3,000: calibration, and choosing while training.
        test: the set's own 10,000 test images in the published order: what the literature's accuracies are of.
        golden: 300 of `test`.
        eval: 3,000 of `test`: the compressor judges by them.
        unseen: the other 6,700 of `test`: nothing but the last measurement touches them.
    """

    train: Split
    val: Split
    test: Split
    golden: Split
    eval: Split
    unseen: Split


def load(cache: Path) -> Splits:
    """Read the data set, fetching the package into `cache` first where it is not installed."""
    folder = _INSTALLED if _INSTALLED.is_dir() else _unpacked(cache)
    whole, test = _read(folder, "train"), _read(folder, "t10k")
    order = np.random.default_rng(17).permutation(len(whole.labels))
    train, val = order[:_TRAIN], order[_TRAIN : _TRAIN + _VAL]
    mixed = np.random.default_rng(18).permutation(len(test.labels))
    parts = np.split(mixed, [_GOLDEN, _GOLDEN + _EVAL])
    golden, judged, unseen = (Split(test.images[rows], test.labels[rows]) for rows in parts)
    return Splits(
        Split(whole.images[train], whole.labels[train]),
        Split(whole.images[val], whole.labels[val]),
        test,
        golden,
        judged,
        unseen,
    )


def _unpacked(cache: Path) -> Path:
    target = cache / "data"
    found = target / _INSTALLED.relative_to("/")
    if found.is_dir():
        return found
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise SystemExit(f"{_INSTALLED} is not there: install Debian's package {PACKAGE}, or unpack it into {target}")
    cache.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["apt-get", "download", PACKAGE], cwd=cache, check=False, capture_output=True, text=True)
    packages = sorted(cache.glob(f"{PACKAGE}_*.deb"))
    if not packages:
        raise SystemExit(f"apt-get download {PACKAGE} gave nothing (apt-get update first?): {done.stderr.strip()}")
    subprocess.run(["dpkg-deb", "-x", str(packages[-1]), str(target)], check=True)
    return found


def _read(folder: Path, name: str) -> Split:
    images = _idx(folder / f"{name}-images-idx3-ubyte.gz")
    labels = _idx(folder / f"{name}-labels-idx1-ubyte.gz")
    if len(images) != len(labels):
        raise ValueError(f"{name}: {len(images)} images and {len(labels)} labels")
    return Split(images, labels.astype(np.int64))


def _idx(path: Path) -> NDArray[np.uint8]:
    """An IDX file: big-endian magic, sizes, then unsigned bytes."""
    raw = gzip.decompress(path.read_bytes())
    dimensions = _MAGIC[int.from_bytes(raw[:4], "big")]
    shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions)]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
