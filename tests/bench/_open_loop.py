"""Open-loop clients in a process of their own: Poisson arrivals, latency from the scheduled time, every answer checked.

`python -m tests.bench._open_loop SOCKET MODEL TRAFFIC CLIENTS RATE SEED` sends until its standard input ends, then prints
a JSON list of [scheduled at (monotonic s), latency ms, lost (0 or 1), retries]. A request is lost when no answer came, or
another one than the first answer to the same input: all versions of a swap bench are equal.
"""

import json
import random
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from wavegate_agent.sdk import Client
from wavegate_shared.errors import WavegateError

_INPUTS = 64


@dataclass(slots=True)
class Load:
    """What all client threads share."""

    pairs: list[tuple[str, str]]
    rate: float
    rng: random.Random
    next_at: float
    sent: int = 0
    records: list[tuple[float, float, int, int]] = field(default_factory=list)
    expected: dict[int, list[float]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopped: threading.Event = field(default_factory=threading.Event)

    def arrival(self) -> tuple[float, int]:
        """The next scheduled time and its number."""
        with self.lock:
            self.next_at += self.rng.expovariate(self.rate)
            self.sent += 1
            return self.next_at, self.sent

    def right(self, which: int, values: list[float]) -> bool:
        """Whether an answer equals the first one to the same input."""
        known = self.expected.setdefault(which, values)
        return len(known) == len(values) and all(abs(a - b) < 1e-3 for a, b in zip(known, values, strict=True))


def run_client(load: Load, address: str, model: str) -> None:
    """One client thread: one keep-alive connection."""
    with Client(address, model, timeout_s=20) as client:
        while True:
            at, number = load.arrival()
            if load.stopped.wait(max(0.0, at - time.monotonic())):
                return
            which, retries = number % len(load.pairs), client.retries
            try:
                answer = client.infer_text_pairs([load.pairs[which]])
                lost = not load.right(which, answer.values("logits"))
            except WavegateError:
                lost = True
            latency = (time.monotonic() - at) * 1000
            load.records.append((at, latency, int(lost), client.retries - retries))


def main(arguments: list[str]) -> None:
    """Send until standard input ends, then print the records."""
    address, model, traffic, clients, rate, seed = arguments
    lines = Path(traffic).read_text(encoding="utf-8").splitlines()[:_INPUTS]
    pairs = [(row["a"], row["b"]) for row in map(json.loads, lines)]
    load = Load(pairs, float(rate), random.Random(int(seed)), time.monotonic() + 0.05)
    threads = [threading.Thread(target=run_client, args=(load, address, model)) for _ in range(int(clients))]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    load.stopped.set()
    for thread in threads:
        thread.join()
    json.dump(load.records, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
