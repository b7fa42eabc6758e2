"""What the demo promises, judged from what was seen. Pure: the same facts always give the same answer and exit code."""

import msgspec

__all__ = ["DeviceFacts", "Facts", "Promise", "judge"]


class DeviceFacts(msgspec.Struct, kw_only=True):
    """One device, counted by the traffic generator; `bytes_fetched` from its signed reports.

    Attributes:
        hardware_class, site: as registered.
        versions: history of versions that answered, repeats left out.
        served, dropped: requests with and without a valid answer.
        outcomes: reports in order, as "1:proven", "3:refused:golden_failed".
        rollback_bytes: bytes fetched for assignments that went back to an older version.
        offered: versions of all assignments ever sent to it.
    """

    id: str
    hardware_class: str
    site: str
    versions: list[int] = []
    served: int = 0
    dropped: int = 0
    bytes_fetched: int = 0
    outcomes: list[str] = []
    rollback_bytes: int = 0
    offered: list[int] = []


class Facts(msgspec.Struct, kw_only=True):
    """Everything the promises are judged from. `rollouts`: version -> final state; `rollback_s`: swap to back again."""

    devices: list[DeviceFacts]
    rollouts: dict[str, str]
    rollback_s: float | None = None
    reason_v3: str = ""
    reason_v4: str = ""


class Promise(msgspec.Struct, frozen=True):
    """One promise: its name, whether it held, and the figure that says so."""

    name: str
    held: bool
    figure: float | None


def judge(facts: Facts) -> list[Promise]:
    """The five promises, in order."""
    return [
        _v1_rolled_out(facts),
        _v2_promoted(facts),
        _v3_refused(facts),
        _v4_rolled_back(facts),
        _none_dropped(facts),
    ]


def _v1_rolled_out(facts: Facts) -> Promise:
    """Every device proved v1 and answered with it."""
    proven = [d for d in facts.devices if "1:proven" in d.outcomes and d.versions[:1] == [1]]
    held = facts.rollouts.get("1") == "completed" and len(proven) == len(facts.devices) > 0
    return Promise("v1_rolled_out", held, len(proven))


def _v2_promoted(facts: Facts) -> Promise:
    """The gate promoted v2, every device proved it and ends on it."""
    proven = [d for d in facts.devices if "2:proven" in d.outcomes and d.versions[-1:] == [2]]
    held = facts.rollouts.get("2") == "completed" and len(proven) == len(facts.devices) > 0
    return Promise("v2_promoted", held, len(proven))


def _v3_refused(facts: Facts) -> Promise:
    """One canary refused v3 for its golden set; nobody served it, and no other device was offered it."""
    refused = [d for d in facts.devices if "3:refused:golden_failed" in d.outcomes]
    served = [d for d in facts.devices if 3 in d.versions]
    offered = [d for d in facts.devices if 3 in d.offered]
    stopped = facts.rollouts.get("3") in ("rolled_back", "cancelled")
    return Promise("v3_refused", stopped and len(refused) == 1 == len(offered) and not served, len(offered))


def _v4_rolled_back(facts: Facts) -> Promise:
    """One canary served v4, the server took it back to v2 without a download, and no other device had it."""
    served = [d for d in facts.devices if 4 in d.versions]
    back = [
        d
        for d in served
        if d.versions[-1] == 2 and d.rollback_bytes == 0 and not any(o.startswith("4:reverted") for o in d.outcomes)
    ]
    held = facts.rollouts.get("4") == "rolled_back" and len(served) == 1 == len(back)
    return Promise("v4_rolled_back", held, facts.rollback_s)


def _none_dropped(facts: Facts) -> Promise:
    """Every request got its answer, and every device was asked."""
    dropped = sum(device.dropped for device in facts.devices)
    held = dropped == 0 and all(device.served > 0 for device in facts.devices) and bool(facts.devices)
    return Promise("none_dropped", held, dropped)
