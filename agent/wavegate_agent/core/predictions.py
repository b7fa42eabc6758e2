"""The recent predictions a label can still be joined to, bounded in number and in bytes.

A label may come minutes after its request, and after a swap. So each entry names the version that answered, and the whole
ring moves to the next worker with the sockets: the score is counted for the version that earned it. Outputs stay as
float32 bytes because scorers are not known here.
"""

from array import array
from collections import OrderedDict
from collections.abc import Iterable

import msgspec

from wavegate_shared.errors import UsageError

__all__ = ["MAX_BYTES", "MAX_ENTRIES", "Prediction", "PredictionRing", "decode_ring", "encode_ring"]

MAX_ENTRIES = 4096
MAX_BYTES = 4 << 20
_MAX_ENTRY_BYTES = 64 << 10


class Prediction(msgspec.Struct, array_like=True):
    """What one request was answered with.

    Attributes:
        id: the request's id.
        version: the version that answered.
        samples: rows of the first output.
        outputs: (samples, k) float32, row by row.
        labelled: whether its label was counted already.
    """

    id: str
    version: int
    samples: int
    outputs: bytes
    labelled: bool = False

    def rows(self) -> list[list[float]]:
        """The flat output of each sample."""
        flat = array("f", self.outputs).tolist()
        width = len(flat) // self.samples if self.samples else 0
        return [flat[row * width : (row + 1) * width] for row in range(self.samples)]


class PredictionRing:
    """Predictions by request id; the oldest leave first. A later request with the same id takes its place."""

    def __init__(self, *, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        self._entries: OrderedDict[str, Prediction] = OrderedDict()
        self._bytes = 0
        self._max_entries = max_entries
        self._max_bytes = max_bytes

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, prediction: Prediction) -> bool:
        """Remember one prediction; False when its outputs are too large to be kept."""
        if len(prediction.outputs) > min(_MAX_ENTRY_BYTES, self._max_bytes):
            return False
        before = self._entries.pop(prediction.id, None)
        if before is not None:
            self._bytes -= len(before.outputs)
        self._entries[prediction.id] = prediction
        self._bytes += len(prediction.outputs)
        while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self._bytes -= len(oldest.outputs)
        return True

    def add_older(self, predictions: Iterable[Prediction]) -> None:
        """Remember what another worker remembered, in the order in which answers were given.

        What is here only is newer than all of it. But after a revert the other worker's ring goes back to where most of it came
        from: entries that both hold are taken as the other one has them, labels included, and what is here only and stands
        before them had left the other ring already: it is older than all of it.
        """
        others = list(predictions)
        versions = {prediction.id: prediction.version for prediction in others}
        here = list(self._entries.values())
        shared = [at for at, entry in enumerate(here) if versions.get(entry.id) == entry.version]
        boundary = shared[-1] + 1 if shared else 0
        older, newer = (
            [e for e in part if versions.get(e.id) != e.version] for part in (here[:boundary], here[boundary:])
        )
        self._entries.clear()
        self._bytes = 0
        for prediction in (*older, *others, *newer):
            self.add(prediction)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._entries

    def label(self, request_id: str, labels: int) -> tuple[Prediction, bool]:
        """The prediction a label belongs to, and whether it counts (False: the same label came before).

        Raises:
            UsageError: `not_found` for an id not remembered, `invalid` when the number of labels is not the number of
                samples.
        """
        found = self._entries.get(request_id)
        if found is None:
            raise UsageError("not_found", f"no recent request has the id {request_id!r}")
        if labels != found.samples:
            raise UsageError("invalid", f"{labels} labels for a request of {found.samples} samples")
        first = not found.labelled
        found.labelled = True
        return found, first

    def entries(self) -> list[Prediction]:
        """All of them, oldest first."""
        return list(self._entries.values())


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[Prediction])


def encode_ring(predictions: list[Prediction]) -> bytes:
    """Bytes for another worker; `decode_ring(encode_ring(p)) == p`."""
    return _ENCODER.encode(predictions)


def decode_ring(data: bytes | memoryview) -> list[Prediction]:
    """Read `encode_ring`'s bytes. Raises msgspec.DecodeError when they are not that."""
    return _DECODER.decode(data)
