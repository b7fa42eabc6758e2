"""What the demo promises, judged from what was seen. Pure: the same facts always give the same answer and exit code."""

import msgspec

__all__ = ["MODEL", "SECOND", "DeviceFacts", "Facts", "Promise", "SecondFacts", "judge"]

MODEL, SECOND = "address-match", "fashion"


class SecondFacts(msgspec.Struct, kw_only=True):
    """The second model on one device. Attributes: versions that answered, requests with and without a valid answer, its outcomes."""

    versions: list[int] = []
    served: int = 0
    dropped: int = 0
    outcomes: list[str] = []


class DeviceFacts(msgspec.Struct, kw_only=True):
    """One device, counted by the traffic generator; `bytes_fetched` from its signed reports.

    Attributes:
        hardware_class, site: as registered.
        versions: history of versions that answered, repeats left out.
        served, dropped: requests with and without a valid answer.
        outcomes: reports in order, as "1:proven", "3:refused:golden_failed".
        rollback_bytes: bytes fetched for assignments that went back to an older version.
        offered: versions of all assignments ever sent to it.
        idle: no application asks it.
        proved_itself: versions it proved by its own requests.
        second: what the second model answered, where the device has it.
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
    idle: bool = False
    proved_itself: list[int] = []
    second: SecondFacts | None = None


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
    """The promises, in order; the one about idle devices only where there are any."""
    idle = [_idle_proven(facts)] if any(device.idle for device in facts.devices) or not facts.devices else []
    return [
        _v1_rolled_out(facts),
        _second_model(facts),
        _v2_promoted(facts),
        *idle,
        _v3_refused(facts),
        _v4_rolled_back(facts),
        _none_dropped(facts),
    ]


def _v1_rolled_out(facts: Facts) -> Promise:
    """Every device proved v1 and answered with it."""
    proven = [d for d in facts.devices if "1:proven" in d.outcomes and (d.idle or d.versions[:1] == [1])]
    held = facts.rollouts.get("1") == "completed" and len(proven) == len(facts.devices) > 0
    return Promise("v1_rolled_out", held, len(proven))


def _second_model(facts: Facts) -> Promise:
    """The gateways proved another model, which answered from then on, whatever happened to the first one."""
    having = [device.second for device in facts.devices if device.second is not None]
    kept = [second for second in having if second.outcomes == ["1:proven"] and second.versions == [1]]
    return Promise("second_model", len(kept) == len(having) > 0, len(kept))


def _idle_proven(facts: Facts) -> Promise:
    """Devices that nobody asks proved v1 and v2 by their own requests."""
    idle = [device for device in facts.devices if device.idle]
    proven = [device for device in idle if {1, 2} <= set(device.proved_itself) and not device.versions]
    return Promise("idle_proven", len(proven) == len(idle) > 0, len(proven))


def _v2_promoted(facts: Facts) -> Promise:
    """The gate promoted v2, every device proved it and ends on it."""
    proven = [d for d in facts.devices if "2:proven" in d.outcomes and (d.idle or d.versions[-1:] == [2])]
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
    """Every request got its answer, and every model was asked, but for devices without applications."""
    asked = [d for d in facts.devices if not d.idle]
    counts = [(d.served, d.dropped) for d in asked]
    counts += [(d.second.served, d.second.dropped) for d in asked if d.second is not None]
    dropped = sum(lost for _, lost in counts)
    held = dropped == 0 and all(served > 0 for served, _ in counts) and bool(counts)
    return Promise("none_dropped", held, dropped)
