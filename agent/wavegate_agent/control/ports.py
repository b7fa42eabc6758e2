"""What the control process needs of its big neighbours: the workers' host, the verifier, the connection to the broker.

Protocols, so that everything above can be tested with fakes; the real ones are `adapters/workers/host.py`,
`adapters/network/verifier.py` and `adapters/network/mqtt.py`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from wavegate_agent.core.live_stats import LiveStats
from wavegate_agent.core.probation import OwnAnswer
from wavegate_shared.assignment import Assignment, SlotAssignment
from wavegate_shared.manifest import Manifest
from wavegate_shared.wire import Bench, GoldenResult

__all__ = ["Connection", "Exit", "Gatekeeper", "Host", "Hosts"]


class Exit(Protocol):
    """A worker that ended by itself; see `adapters/workers/host.py`."""

    @property
    def version(self) -> int:
        """Which version it ran."""

    @property
    def role(self) -> str:
        """`live`, `candidate` or `standby`."""

    @property
    def detail(self) -> str:
        """How it ended."""


class Host(Protocol):
    """What is needed of the worker host; see `adapters/workers/host.py`."""

    @property
    def live_version(self) -> int:
        """The version in charge, 0 when there is none."""

    def start_live(self, version_dir: Path, manifest: Manifest) -> None:
        """Make a version serve."""

    def load_candidate(self, version_dir: Path, manifest: Manifest) -> float:
        """Load time in ms."""

    def load_original(self, version_dir: Path, manifest: Manifest) -> GoldenResult:
        """For a bench round: start what the candidate is measured beside; its golden set's result."""

    def golden(self) -> GoldenResult:
        """Of the candidate."""

    def bench(self, should_stop: Callable[[], bool]) -> Bench:
        """Candidate beside the version in charge."""

    def swap(self) -> float:
        """Time of the swap in ms."""

    def revert(self) -> float:
        """Time of the way back in ms."""

    def discard_candidate(self) -> None:
        """End the candidate."""

    def release_standby(self) -> None:
        """End the standby."""

    def own_request(self, sample: int) -> OwnAnswer | None:
        """Golden sample number `sample` through the public socket; None when that says nothing about the live version."""

    def collect(self) -> list[LiveStats]:
        """Counts since the last call."""

    def poll(self) -> Sequence[Exit]:
        """Workers that ended by themselves."""

    def close(self) -> None:
        """End everything."""


class Hosts(Protocol):
    """Makes worker hosts; see `control/boot.py`."""

    @property
    def tcp_port(self) -> int | None:
        """The local API's port on loopback, None without one."""

    def make(self, model: str) -> Host:
        """The host of one more model."""

    def close(self) -> None:
        """Close what the hosts share."""


class Gatekeeper(Protocol):
    """What is needed of the verifier; see `adapters/network/verifier.py`."""

    def open(self, envelope: bytes, *, last_seq: int, now: datetime) -> Assignment:
        """Steps 1 to 4 of the verification order."""

    def manifest(
        self,
        slot: SlotAssignment,
        *,
        now: datetime,
        active_version: int,
        quarantined: Collection[str],
        meta_min: Mapping[str, int] | None = None,
    ) -> Manifest:
        """Steps 5 and 6."""

    def manifest_bytes(self, slot: SlotAssignment) -> bytes:
        """The signed bytes."""


class Connection(Protocol):
    """What is needed of the connection to the broker; see `adapters/network/mqtt.py`."""

    penalty_s: float

    @property
    def connected(self) -> bool:
        """Whether messages can be sent."""

    @property
    def room(self) -> int:
        """How many more may be under way."""

    def publish(self, topic: str, payload: bytes, qos: int = 1) -> bool:
        """Hand over a message; False when there is no connection."""

    def reconnect(self) -> None:
        """End the present connection and make another one."""

    def start(self) -> None:
        """Connect and stay connected."""

    def stop(self) -> None:
        """Disconnect."""
