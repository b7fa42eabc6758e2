"""The traffic generator: applications on the devices, which know the right answers.

One process, one connection per device, requests at a fixed rate whether or not the last one was answered in time. It sends
the true label back by request id, so live accuracy is measured; and it counts: the demo's figures come from here, not from
the agents. There is no retry: a request without a valid answer is a dropped one.

Run as `python -m wavegate_server.demo.traffic CONFIG.json`; see `TrafficConfig`. Counts are written to `stats_file` twice a
second, whole. SIGTERM ends it after the requests in flight.
"""

import base64
import http.client
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

__all__ = ["DeviceStats", "Traffic", "TrafficConfig", "VersionStats", "read_stats"]

TIMEOUT_S = 20.0


class Target(msgspec.Struct, frozen=True):
    """One device's application. Attributes: device id, path of its inference socket."""

    device: str
    socket: str


class TrafficConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What to send where.

    Attributes:
        targets: the devices.
        model: model name.
        samples: JSON lines with `a`, `b`, `label`, `kind`.
        rate_per_s: requests per second and device.
        stats_file: where the counts go.
        seed: order of the samples.
    """

    targets: list[Target]
    model: str
    samples: str
    stats_file: str
    rate_per_s: float = 8.0
    seed: int = 1


class Sample(msgspec.Struct, frozen=True):
    """One labelled address pair."""

    a: str
    b: str
    label: int
    kind: str


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
    """Counts of one device. `dropped` requests have no version: nobody answered them.

    `history` is the version of each answer with repeats left out, as ["1", "2", "4", "2"].
    """

    served: int = 0
    dropped: int = 0
    feedback_failed: int = 0
    last_error: str = ""
    versions: dict[str, VersionStats] = {}
    history: list[str] = []


def read_stats(path: Path) -> dict[str, DeviceStats]:
    """The newest counts by device; empty before the first were written."""
    with suppress(FileNotFoundError):
        return msgspec.json.decode(path.read_bytes(), type=dict[str, DeviceStats])
    return {}


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._path)


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
        lines = Path(config.samples).read_text(encoding="utf-8").splitlines()
        self._samples = [msgspec.json.decode(line, type=Sample) for line in lines if line]
        self._stopping = threading.Event()
        self._tallies = {target.device: _Tally() for target in config.targets}
        self._lock = threading.Lock()

    def run(self) -> None:
        """Send until stopped; every request that was begun is finished and counted."""
        apps = [threading.Thread(target=self._app, args=(target, n)) for n, target in enumerate(self._config.targets)]
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

    def _app(self, target: Target, number: int) -> None:
        tally = self._tallies[target.device]
        self._wait_ready(target)
        connection: _UnixConnection | None = None
        period = 1.0 / self._config.rate_per_s
        due = time.monotonic() + period * number / len(self._config.targets)  # not all at once
        for count, sample in enumerate(self._stream(number)):
            if self._stopping.wait(max(0.0, due - time.monotonic())):
                break
            connection = connection or _UnixConnection(target.socket)
            if not self._ask(connection, sample, f"{target.device}-{count}", due, tally):
                connection.close()
                connection = None
            due = max(due + period, time.monotonic() - 5 * period)  # after a long stall, do not fire a burst
        if connection is not None:
            connection.close()

    def _wait_ready(self, target: Target) -> None:
        """An application starts to ask when the model is there; before that there is nobody to ask."""
        while not self._stopping.wait(0.2):
            connection = _UnixConnection(target.socket)
            with suppress(OSError, http.client.HTTPException):
                connection.request("GET", f"/v2/models/{self._config.model}/ready")
                ready = connection.getresponse().status == 200
                connection.close()
                if ready:
                    return
            connection.close()

    def _stream(self, number: int) -> Iterator[Sample]:
        order = random.Random(self._config.seed * 1000 + number)  # noqa: S311 - a shuffle, not a secret
        while True:
            yield from order.sample(self._samples, len(self._samples))

    def _ask(self, connection: _UnixConnection, sample: Sample, name: str, due: float, tally: _Tally) -> bool:
        try:
            answer = msgspec.json.decode(self._post(connection, "infer", _question(sample, name)), type=_Answer)
            logits, version = answer.outputs[0].data, answer.model_version
            if answer.id != name or len(logits) != 2:
                raise ValueError(f"answer to {answer.id!r} with {len(logits)} values")
        except (OSError, http.client.HTTPException, ValueError, IndexError, msgspec.DecodeError) as error:
            with self._lock:
                tally.dropped += 1
                tally.last_error = f"{name}: {type(error).__name__}: {error}"
            return False
        latency_ms = (time.monotonic() - due) * 1000
        with self._lock:
            tally.count(version, (logits[1] > logits[0]) == bool(sample.label), latency_ms)
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
        connection.request("POST", f"/v2/models/{self._config.model}/{verb}", json.dumps(body), headers)
        response = connection.getresponse()
        data = response.read()
        if response.status not in (200, 202, 204):
            raise ValueError(f"status {response.status}: {data[:200]!r}")
        return data

    def _write(self) -> None:
        with self._lock:
            stats = {device: tally.stats() for device, tally in self._tallies.items()}
        path = Path(self._config.stats_file)
        fresh = path.with_suffix(".tmp")
        fresh.write_bytes(msgspec.json.encode(stats))
        fresh.replace(path)


def _question(sample: Sample, name: str) -> dict[str, object]:
    return {
        "id": name,
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [1, 2], "data": [sample.a, sample.b]}],
    }


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
