"""The director's word to one device: which version it should run, and the pure checks of it.

One DSSE-signed assignment per device (payload type `ASSIGNMENT_TYPE`) names the version of *each* model of the device: `slots`
holds one entry a model, and a model of the device that is in neither `slots` nor `removed` makes the device refuse the whole
assignment, so that no model is lost by a slip. The director can only pick among versions that the release key signed; a rollback
is a new assignment (higher `seq`, `allow_older`) that names an older version. Without any entry in `slots` and `removed` the
assignment changes nothing: keep what is active.
"""

from datetime import datetime
from typing import Annotated

import msgspec

from wavegate_shared.errors import TrustError

__all__ = [
    "ASSIGNMENT_TYPE",
    "TIME_TYPE",
    "Assignment",
    "Beside",
    "Probation",
    "Removal",
    "SlotAssignment",
    "TimeDocument",
    "check_assignment",
]

ASSIGNMENT_TYPE = "application/vnd.wavegate.assignment+json"
TIME_TYPE = "application/vnd.wavegate.time+json"


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """What a candidate for benching is measured beside: the original, a target of the same bench role. Fields as below."""

    model: str
    target: str
    length: Annotated[int, msgspec.Meta(ge=1)]
    sha256: str
    release_seq: int


class SlotAssignment(msgspec.Struct, frozen=True, kw_only=True):
    """The version one model position of the device should run.

    Attributes:
        model: model name.
        target: TUF target path of the manifest.
        length: length of the manifest in bytes.
        sha256: digest of the manifest, hex.
        release_seq: the version number; it must reach the model's `min_seq`.
        allow_older: signed permission to go below the active version (rollback).
        override_quarantine: signed permission to try a digest that failed here before.
        wrapped_key: content key for encrypted artifacts; reserved.
        beside: with a target below `bench/` only: what to measure the candidate beside.
        seq: the assignment that first held this entry; 0: the one it stands in. An entry with a `seq` the device took before is
            not begun again.
        rollout: where the entry comes from; None: see the assignment.
        probation: of this entry; None: see the assignment.
    """

    model: str
    target: str
    length: Annotated[int, msgspec.Meta(ge=1)]
    sha256: str
    release_seq: int
    allow_older: bool = False
    override_quarantine: bool = False
    wrapped_key: str | None = None
    beside: Beside | None = None
    seq: Annotated[int, msgspec.Meta(ge=0)] = 0
    rollout: str | None = None
    probation: "Probation | None" = None


class Probation(msgspec.Struct, frozen=True, kw_only=True):
    """When a swapped version counts as proven on the device: at least this long and this many live requests.

    Attributes:
        idle_after: seconds after the swap from which the agent adds its own requests (golden samples through the public
            socket) where live ones do not come; None for live requests only.
    """

    seconds: Annotated[float, msgspec.Meta(ge=0, le=10 * 365 * 86400)] = 60.0
    requests: Annotated[int, msgspec.Meta(ge=0)] = 50
    max_error_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.02
    max_p99_ratio: Annotated[float, msgspec.Meta(gt=0, le=1e9)] = 3.0
    idle_after: Annotated[float, msgspec.Meta(ge=0, le=10 * 365 * 86400)] | None = 120.0


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """A model is to be taken away from the device. `seq`: the assignment that first said so; `rollout`: where it comes from."""

    seq: Annotated[int, msgspec.Meta(ge=1)]
    rollout: str | None = None


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """What one device should run.

    Attributes:
        seq: rises with every assignment of this device.
        issued, expires: aware UTC, RFC 3339.
        rollout, wave: where it comes from; None for a direct order.
        reason: for people, as "rollback: wrong on 7 of 10 devices".
        attempt: repeats of the same order; part of the id devices deduplicate by.
        slots: one entry a model; the key is a label, the entry's `model` counts.
        removed: models to take away, by name.
        meta_min: lowest acceptable TUF metadata versions by role name.
    """

    device: str
    seq: Annotated[int, msgspec.Meta(ge=1)]
    issued: datetime
    expires: datetime
    rollout: str | None = None
    wave: int | None = None
    reason: str = ""
    attempt: int = 1
    slots: dict[str, SlotAssignment] = {}
    removed: dict[str, Removal] = {}
    probation: Probation = Probation()
    meta_min: dict[str, int] = {}


class TimeDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The server's signed answer to a nonce challenge (payload type `TIME_TYPE`, signed by the time key).

    Attributes:
        nonce: the challenge, repeated; a device accepts only the nonce it has just sent.
        time: the server's clock, aware UTC.
    """

    nonce: Annotated[str, msgspec.Meta(min_length=16, max_length=64)]
    time: datetime


def check_assignment(assignment: Assignment, *, device: str, last_seq: int, now: datetime) -> None:
    """Step 3 of the verification order: device, sequence, expiry. Equal `seq` is a repeat and passes.

    Args:
        assignment: opened with `dsse.open_signed`, so its signature holds.
        device: this device's id.
        last_seq: highest `seq` ever accepted here.
        now: trusted time, aware UTC.

    Raises:
        TrustError: `wrong_device`, `assignment_replayed` or `assignment_expired`.
    """
    if assignment.device != device:
        raise TrustError("wrong_device", f"assignment for {assignment.device}, this is {device}")
    if assignment.seq < last_seq:
        raise TrustError("assignment_replayed", f"seq {assignment.seq}, already accepted {last_seq}")
    if assignment.issued.tzinfo is None or assignment.expires.tzinfo is None:
        raise TrustError("message_malformed", "times without a zone")
    if assignment.expires <= now:
        raise TrustError("assignment_expired", f"expired {assignment.expires.isoformat()}")
