"""Who is in which wave: a fixed order of the devices, cut where the policy says.

The order depends only on the rollout's seed and the devices, never on the percentages, so a raised percentage only adds
devices. It is spread over hardware classes (each class has one device at the front, then in proportion) and over sites (the
pick that would complete a site comes last). Within a class, devices with live traffic come before idle ones: a canary that nobody
asks shows little. Equal chances are drawn by blake2b(seed:device): a new seed, other canaries.
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
    """A device that may be put into a wave. `live`: applications asked it for the model since yesterday."""

    device: str
    hardware_class: str
    site: str
    live: bool = False


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

    The first C are one of each of the C classes; from there on classes come in proportion. Within a class, those with live traffic
    come first. Within that, the site with the smallest share already taken is next, and a device that would complete its site
    waits until no other choice is left.
    """
    sizes = Counter(candidate.site for candidate in candidates)
    taken: Counter[str] = Counter()
    groups = _by_class(candidates)
    queues = {
        name: [_SiteQueue(seed, [one for one in members if one.live is live]) for live in (True, False)]
        for name, members in groups.items()
    }
    result = []
    for name in _class_sequence(seed, {name: len(members) for name, members in groups.items()}):
        live, idle = queues[name]
        device, site = (live or idle).next(sizes, taken)
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
    """Devices of one class; gives the next one by the state of the sites. False once it is empty.

    Keys only grow while sites fill up, so a stale heap entry is pushed back with its new key (lazy update): n log n.
    """

    def __init__(self, seed: str, members: Sequence[Candidate]) -> None:
        self._left: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for member in members:
            self._left[member.site].append((draw(seed, member.device), member.device))
        for lots in self._left.values():
            lots.sort(reverse=True)
        self._heap = [(False, 0.0, draw(seed, f"site/{site}"), site) for site in self._left]
        heapq.heapify(self._heap)

    def __bool__(self) -> bool:
        return bool(self._heap)

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
