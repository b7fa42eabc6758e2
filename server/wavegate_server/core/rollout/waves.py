"""Who is in which wave: a fixed order of the devices, cut where the policy says.

The order depends only on the rollout's seed and the devices, never on the percentages, so a raised percentage only adds
devices. It is spread over hardware classes (each class has one device at the front, then in proportion) and over sites (the
pick that would complete a site comes last). Equal chances are drawn by blake2b(seed:device): a new seed, other canaries.
Membership is frozen at the rollout's start. Not here: when a wave begins (`step`).

Source: docs/adr/0009-a-rollout-is-a-pure-step.md; the same idea as bucketed feature flags.
"""

import hashlib
import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from wavegate_server.core.gate.policy import WaveSpec

__all__ = ["Candidate", "Wave", "draw", "order", "plan_waves"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device that may be put into a wave."""

    device: str
    hardware_class: str
    site: str


@dataclass(frozen=True, slots=True)
class Wave:
    """One wave with its devices, in order."""

    number: int
    name: str
    devices: tuple[str, ...]


def draw(seed: str, device: str) -> int:
    """The device's lot in this rollout: uniform in 0 .. 2**64 - 1."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{device}".encode(), digest_size=8).digest(), "big")


def order(seed: str, candidates: Sequence[Candidate]) -> list[str]:
    """All devices in the order in which they are reached.

    The first C are one of each of the C classes; from there on classes come in proportion. Within that, the site with the
    smallest share already taken is next, and a device that would complete its site waits until no other choice is left.
    """
    sizes = Counter(candidate.site for candidate in candidates)
    taken: Counter[str] = Counter()
    queues = {name: _SiteQueue(seed, members) for name, members in _by_class(candidates).items()}
    result = []
    for name in _class_sequence(seed, {name: queue.size for name, queue in queues.items()}):
        device, site = queues[name].next(sizes, taken)
        taken[site] += 1
        result.append(device)
    return result


def plan_waves(seed: str, candidates: Sequence[Candidate], specs: Sequence[WaveSpec]) -> list[Wave]:
    """The waves; every device is in exactly one, none is empty, and the last one takes all that are left."""
    devices = order(seed, candidates)
    waves: list[Wave] = []
    at = 0
    for spec in (*specs, WaveSpec(percent=100.0)):
        end = at + spec.count if spec.count else math.ceil(len(devices) * (spec.percent or 100.0) / 100.0)
        end = min(end, len(devices))
        if end > at:
            waves.append(Wave(len(waves), spec.name or f"wave {len(waves) + 1}", tuple(devices[at:end])))
            at = end
    return waves


def _by_class(candidates: Sequence[Candidate]) -> dict[str, list[Candidate]]:
    groups: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        groups[candidate.hardware_class].append(candidate)
    return groups


def _class_sequence(seed: str, sizes: dict[str, int]) -> list[str]:
    slots = [
        (rank / size, draw(seed, f"class/{name}/{rank}"), name) for name, size in sizes.items() for rank in range(size)
    ]
    return [name for _, _, name in sorted(slots)]


class _SiteQueue:
    """The devices of one class; gives the next one by the state of the sites.

    Keys only grow while sites fill up, so a stale heap entry is pushed back with its new key (lazy update): n log n.
    """

    def __init__(self, seed: str, members: Sequence[Candidate]) -> None:
        self.size = len(members)
        self._seed = seed
        self._left: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for member in members:
            self._left[member.site].append((draw(seed, member.device), member.device))
        for lots in self._left.values():
            lots.sort(reverse=True)
        self._heap = [(False, 0.0, draw(seed, f"site/{site}"), site) for site in self._left]
        heapq.heapify(self._heap)

    def next(self, sizes: Counter[str], taken: Counter[str]) -> tuple[str, str]:
        while True:
            completes, share, lot, site = heapq.heappop(self._heap)
            now = (taken[site] + 1 >= sizes[site], taken[site] / sizes[site])
            if now != (completes, share):
                heapq.heappush(self._heap, (*now, lot, site))
                continue
            _, device = self._left[site].pop()
            if self._left[site]:
                heapq.heappush(self._heap, (completes, share, lot, site))
            return device, site
