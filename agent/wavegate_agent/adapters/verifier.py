"""The verification order as two calls for the runner: `open` for an assignment, `manifest` for a slot of it. (signatures; body follows)"""

from collections.abc import Collection
from datetime import datetime

from wavegate_agent.adapters.tuf_client import ImageRepository
from wavegate_agent.core.verify import DeviceFacts
from wavegate_shared.assignment import Assignment, SlotAssignment
from wavegate_shared.manifest import Manifest

__all__ = ["Verifier"]


class Verifier:
    """Steps 1 to 6 of the verification order. It fetches on the caller's thread."""

    def __init__(self, repository: ImageRepository, facts: DeviceFacts) -> None:
        raise NotImplementedError

    def open(self, envelope: bytes, *, last_seq: int, now: datetime) -> Assignment:
        """The assignment in `envelope`, verified: schema, director's signature, device, seq, expiry (steps 1 to 3); when its
        seq is above `last_seq` also a metadata refresh that meets `meta_min` and the signature again under the refreshed
        director keys (step 4). A repeat (equal seq) costs no network. Fetches first when no key is known yet.

        Raises TrustError (message_malformed, signature_invalid, wrong_device, assignment_replayed, assignment_expired,
        metadata_invalid, metadata_stale), TransferError when the server did not answer: try again.
        """
        raise NotImplementedError

    def manifest(self, slot: SlotAssignment, *, active_version: int, quarantined: Collection[str]) -> Manifest:
        """The slot's manifest, listed, fetched and allowed on this device (steps 5 and 6)."""
        raise NotImplementedError

    def manifest_bytes(self, slot: SlotAssignment) -> bytes:
        """The exact signed bytes of the slot's manifest, for the version's directory; cached after `manifest`."""
        raise NotImplementedError
