"""Samples from a bundle's npz files, pre-processed into what the graph takes: one feed per sample.

The same declared operations run on the device before each inference; both sides use `wavegate_shared.preprocess`.
"""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from wavegate_shared.errors import DeviceError, UsageError
from wavegate_shared.metrics import Label
from wavegate_shared.preprocess import Step, build_pre

__all__ = ["Feed", "Samples", "count_samples", "load_samples"]

Feed = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Samples:
    """Pre-processed samples.

    Attributes:
        feeds: n feeds, each with batch size 1; from a file, each is prepared when it is asked for and not kept, so that
            memory does not grow with the number of samples.
        labels: (n,) or (n, k) float64, or None where the file has none.
    """

    feeds: Sequence[Feed]
    labels: NDArray[np.float64] | None

    def rows(self, chosen: Sequence[int]) -> "Samples":
        """Only the samples at these places, in this order."""
        labels = None if self.labels is None else self.labels[list(chosen)]
        return Samples(_Chosen(self.feeds, chosen), labels)

    def label_list(self) -> list[Label]:
        """A label for each sample; 0 where there are none."""
        if self.labels is None:
            return [0.0] * len(self.feeds)
        return [self.label(at) for at in range(len(self.feeds))]

    def label(self, at: int) -> Label:
        """The label of one sample; 0 where there are none."""
        if self.labels is None:
            return 0.0
        label = self.labels[at]
        return float(label) if label.ndim == 0 else label.reshape(-1).tolist()


def load_samples(npz: Path, pre: Sequence[Mapping[str, Any]], directory: Path) -> Samples:
    """Read `npz` (`input.<name>` arrays, optional `label`) and run the declared operations.

    Raises:
        UsageError: `bundle_invalid`: not an npz, no inputs, unequal lengths, pickled objects.
    """
    inputs, labels = _read(npz)
    feeds = _Prepared(npz.name, inputs, _steps(pre, directory))
    feeds[0]  # what fits no sample is said now
    return Samples(feeds, None if labels is None else labels.astype(np.float64))


class _Prepared(Sequence[Feed]):
    """Feeds of raw arrays, each prepared when it is asked for."""

    def __init__(self, name: str, inputs: Mapping[str, NDArray[Any]], steps: Sequence[Step]) -> None:
        self._name, self._inputs, self._steps = name, inputs, steps

    def __len__(self) -> int:
        return len(next(iter(self._inputs.values())))

    @overload
    def __getitem__(self, at: int) -> Feed: ...
    @overload
    def __getitem__(self, at: slice) -> list[Feed]: ...
    def __getitem__(self, at: int | slice) -> Feed | list[Feed]:
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(len(self)))]
        number = at + len(self) if at < 0 else at
        if not 0 <= number < len(self):
            raise IndexError(at)
        feed = {name: array[number : number + 1] for name, array in self._inputs.items()}
        _prepare(feed, self._steps, f"{self._name}, sample {number}")
        return feed


class _Chosen(Sequence[Feed]):
    """Some of other feeds, in an order of their own."""

    def __init__(self, feeds: Sequence[Feed], chosen: Sequence[int]) -> None:
        self._feeds, self._chosen = feeds, list(chosen)

    def __len__(self) -> int:
        return len(self._chosen)

    @overload
    def __getitem__(self, at: int) -> Feed: ...
    @overload
    def __getitem__(self, at: slice) -> list[Feed]: ...
    def __getitem__(self, at: int | slice) -> Feed | list[Feed]:
        if isinstance(at, slice):
            return [self._feeds[each] for each in self._chosen[at]]
        return self._feeds[self._chosen[at]]


def count_samples(npz: Path) -> tuple[int, bool]:
    """Number of samples and whether they have labels. Raises like `load_samples`."""
    inputs, labels = _read(npz)
    return len(next(iter(inputs.values()))), labels is not None


def _read(npz: Path) -> tuple[dict[str, NDArray[Any]], NDArray[Any] | None]:
    try:
        with npz.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UsageError("bundle_invalid", f"{npz.name} is not an npz of plain arrays: {error}") from error
    inputs = {name.removeprefix("input."): array for name, array in arrays.items() if name.startswith("input.")}
    labels = arrays.get("label")
    lengths = {len(array) for array in inputs.values()} | ({len(labels)} if labels is not None else set())
    if not inputs or len(lengths) != 1 or lengths == {0}:
        raise UsageError("bundle_invalid", f"{npz.name} needs input.* arrays (and label) of one length above 0")
    return inputs, labels


def _steps(pre: Sequence[Mapping[str, Any]], directory: Path) -> list[Step]:
    try:
        return build_pre(pre, lambda name: (directory / name).read_bytes())
    except (DeviceError, ValueError, OSError) as error:
        detail = error.detail if isinstance(error, DeviceError) else str(error)
        raise UsageError("bundle_invalid", f"pre-processing: {detail}") from error


def _prepare(feed: Feed, steps: Sequence[Step], place: str) -> None:
    try:
        for step in steps:
            step(feed)
    except UsageError as error:
        raise UsageError("bundle_invalid", f"{place}: {error.detail}") from error
