"""The traffic generator: applications on the devices, which know the right answers.

One process, one connection per device, requests at a fixed rate whether or not the last one was answered in time. It sends
the true label back by request id, so live accuracy is measured; and it counts: the demo's figures come from here, not from
the agents. There is no retry: a request without a valid answer is a dropped one.

Run as `python -m wavegate_server.demo.traffic CONFIG.json`; see `TrafficConfig`. Counts are written to `stats_file` twice a
second, whole. SIGTERM ends it after the requests in flight.
"""

import base64
import http.client
import itertools
import json
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from wavegate_shared.histogram import Histogram

__all__ = ["Application", "DeviceStats", "Sample", "Traffic", "TrafficConfig", "VersionStats", "read_stats"]

TIMEOUT_S = 20.0
ORDINARY = "ordinary"
_KIND_EVERY = 3
"""Every third request is of a kind that is not ordinary, where the samples have one: enough to be seen in a short soak."""
_SIDE = 28


class Application(msgspec.Struct, frozen=True, kw_only=True):
    """One application on one device.

    Attributes:
        device: the device's id.
        socket: path of its inference socket.
        model: the model it asks.
        samples: JSON lines, each a `Sample`.
        rate_per_s: requests per second.
    """

    device: str
    socket: str
    model: str
    samples: str
    rate_per_s: float

    @property
    def name(self) -> str:
        """Device and model: an application asks one model of one device."""
        return f"{self.device}/{self.model}"


class TrafficConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent where. Attributes: the applications, the file for the counts, the seed of the samples' order."""

    applications: list[Application]
    stats_file: str
    seed: int = 1


class Sample(msgspec.Struct, frozen=True):
    """An input with the true label: a pair of addresses `a` and `b`, or an `image` of 28 x 28 grey values."""

    label: int
    a: str = ""
    b: str = ""
    image: list[int] = []
    kind: str = ORDINARY


class _Tensor(msgspec.Struct, frozen=True):
    data: list[float]


class _Answer(msgspec.Struct, frozen=True):
    id: str
    model_version: str
    outputs: list[_Tensor]


class VersionStats(msgspec.Struct):
    """What one version answered on one device. `latency` is an encoded Histogram in base64 (ms)."""

    served: int = 0
    correct: int = 0
    latency: str = ""


class DeviceStats(msgspec.Struct):
    """Counts of one application. `dropped` requests have no version: nobody answered them.

    `history` is the version of each answer with repeats left out, as ["1", "2", "4", "2"].
    """

    served: int = 0
    dropped: int = 0
    feedback_failed: int = 0
    last_error: str = ""
    versions: dict[str, VersionStats] = {}
    history: list[str] = []


def read_stats(path: Path) -> dict[str, DeviceStats]:
    """The newest counts by application's name; empty before the first were written."""
    with suppress(FileNotFoundError):
        return msgspec.json.decode(path.read_bytes(), type=dict[str, DeviceStats])
    return {}


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, app: Application) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self.app = app

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self.app.socket)


@dataclass
class _Tally:
    served: int = 0
    dropped: int = 0
    feedback_failed: int = 0
    last_error: str = ""
    correct: dict[str, int] = field(default_factory=dict)
    answered: dict[str, int] = field(default_factory=dict)
    latency: dict[str, Histogram] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)

    def count(self, version: str, right: bool, latency_ms: float) -> None:
        self.served += 1
        self.answered[version] = self.answered.get(version, 0) + 1
        self.correct[version] = self.correct.get(version, 0) + right
        self.latency.setdefault(version, Histogram()).add(latency_ms)
        if self.history[-1:] != [version]:
            self.history.append(version)

    def stats(self) -> DeviceStats:
        versions = {
            version: VersionStats(count, self.correct.get(version, 0), _text(self.latency[version]))
            for version, count in self.answered.items()
        }
        return DeviceStats(
            self.served, self.dropped, self.feedback_failed, self.last_error, versions, list(self.history)
        )


class Traffic:
    """All applications of the fleet, until `stop`."""

    def __init__(self, config: TrafficConfig) -> None:
        self._config = config
        self._samples = {file: _read_samples(Path(file)) for file in {one.samples for one in config.applications}}
        self._stopping = threading.Event()
        self._tallies = {one.name: _Tally() for one in config.applications}
        self._lock = threading.Lock()

    def run(self) -> None:
        """Send until stopped; every request that was begun is finished and counted."""
        apps = [threading.Thread(target=self._app, args=(one, n)) for n, one in enumerate(self._config.applications)]
        for app in apps:
            app.start()
        while not self._stopping.wait(0.5):
            self._write()
        for app in apps:
            app.join()
        self._write()

    def stop(self) -> None:
        """End after the requests in flight."""
        self._stopping.set()

    def _app(self, app: Application, number: int) -> None:
        tally = self._tallies[app.name]
        self._wait_ready(app)
        connection: _UnixConnection | None = None
        period = 1.0 / app.rate_per_s
        due = time.monotonic() + period * number / len(self._config.applications)  # not all at once
        for count, sample in enumerate(self._stream(app, number)):
            if self._stopping.wait(max(0.0, due - time.monotonic())):
                break
            connection = connection or _UnixConnection(app)
            if not self._ask(connection, sample, f"{app.name}-{count}", due, tally):
                connection.close()
                connection = None
            due = max(due + period, time.monotonic() - 5 * period)  # after a long stall, do not fire a burst
        if connection is not None:
            connection.close()

    def _wait_ready(self, app: Application) -> None:
        """An application starts to ask when the model is there; before that there is nobody to ask."""
        while not self._stopping.wait(0.2):
            connection = _UnixConnection(app)
            with suppress(OSError, http.client.HTTPException):
                connection.request("GET", f"/v2/models/{app.model}/ready")
                ready = connection.getresponse().status == 200
                connection.close()
                if ready:
                    return
            connection.close()

    def _stream(self, app: Application, number: int) -> Iterator[Sample]:
        order = random.Random(self._config.seed * 1000 + number)  # noqa: S311 - a shuffle, not a secret
        samples = self._samples[app.samples]
        ordinary = _shuffled(order, [sample for sample in samples if sample.kind == ORDINARY])
        other = [sample for sample in samples if sample.kind != ORDINARY]
        rare = _shuffled(order, other)
        for count in itertools.count(1):
            yield next(rare if other and count % _KIND_EVERY == 0 else ordinary)

    def _ask(self, connection: _UnixConnection, sample: Sample, name: str, due: float, tally: _Tally) -> bool:
        try:
            answer = msgspec.json.decode(self._post(connection, "infer", _question(sample, name)), type=_Answer)
            logits, version = answer.outputs[0].data, answer.model_version
            if answer.id != name or len(logits) <= sample.label:
                raise ValueError(f"answer to {answer.id!r} with {len(logits)} values")
        except (OSError, http.client.HTTPException, ValueError, IndexError, msgspec.DecodeError) as error:
            with self._lock:
                tally.dropped += 1
                tally.last_error = f"{name}: {type(error).__name__}: {error}"
            return False
        latency_ms = (time.monotonic() - due) * 1000
        with self._lock:
            tally.count(version, logits.index(max(logits)) == sample.label, latency_ms)
        return self._feed_back(connection, sample, name, tally)

    def _feed_back(self, connection: _UnixConnection, sample: Sample, name: str, tally: _Tally) -> bool:
        try:
            self._post(connection, "feedback", {"id": name, "label": sample.label})
        except (OSError, http.client.HTTPException, ValueError) as error:
            with self._lock:
                tally.feedback_failed += 1
                tally.last_error = f"feedback {name}: {type(error).__name__}: {error}"
            return False
        return True

    def _post(self, connection: _UnixConnection, verb: str, body: dict[str, object]) -> bytes:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", f"/v2/models/{connection.app.model}/{verb}", json.dumps(body), headers)
        response = connection.getresponse()
        data = response.read()
        if response.status not in (200, 202, 204):
            raise ValueError(f"status {response.status}: {data[:200]!r}")
        return data

    def _write(self) -> None:
        with self._lock:
            stats = {name: tally.stats() for name, tally in self._tallies.items()}
        path = Path(self._config.stats_file)
        fresh = path.with_suffix(".tmp")
        fresh.write_bytes(msgspec.json.encode(stats))
        fresh.replace(path)


def _read_samples(file: Path) -> list[Sample]:
    return [msgspec.json.decode(line, type=Sample) for line in file.read_text(encoding="utf-8").splitlines() if line]


def _shuffled(order: random.Random, samples: list[Sample]) -> Iterator[Sample]:
    """All samples in a new order each time, without an end; nothing where there are none."""
    while samples:
        yield from order.sample(samples, len(samples))


def _question(sample: Sample, name: str) -> dict[str, object]:
    if sample.image:
        tensor = {"name": "image", "datatype": "UINT8", "shape": [1, _SIDE, _SIDE], "data": sample.image}
    else:
        tensor = {"name": "text", "datatype": "BYTES", "shape": [1, 2], "data": [sample.a, sample.b]}
    return {"id": name, "inputs": [tensor]}


def _text(histogram: Histogram) -> str:
    return base64.b64encode(histogram.encode()).decode()


def main() -> int:
    """Run until SIGTERM."""
    traffic = Traffic(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=TrafficConfig))
    signal.signal(signal.SIGTERM, lambda *_: traffic.stop())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the demo, which ends this process in order
    traffic.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
