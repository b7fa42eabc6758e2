"""The verification order as calls for the runner: `open` for an assignment, `manifest` for a slot of it.

Steps 1 to 4 are `open`, 5 and 6 `manifest`; the rules are pure and stand in `core/verify.py`. Each failure raises its named
code and nothing falls back to a weaker check. Not here: the runner's own steps (space, chunks, trial, swap).
"""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from wavegate_agent.adapters.network.image_repository import ImageRepository
from wavegate_agent.core.verify import DeviceFacts, TargetInfo, check_fresh, check_listed, check_manifest
from wavegate_shared.assignment import ASSIGNMENT_TYPE, Assignment, SlotAssignment, check_assignment
from wavegate_shared.dsse import open_signed
from wavegate_shared.errors import TransferError, TrustError
from wavegate_shared.manifest import Manifest

__all__ = ["Verifier"]

_LOOK_AGAIN = timedelta(seconds=60)
"""How often an unknown signature may make the device ask for newer keys: forged assignments must not become traffic."""


class Verifier:
    """The device's gatekeeper. It fetches on the caller's thread; one thread at a time."""

    def __init__(self, repository: ImageRepository, facts: DeviceFacts) -> None:
        self._repository = repository
        self._facts = facts
        self._looked: datetime | None = None
        self._manifests: dict[str, bytes] = {}

    def open(self, envelope: bytes, *, last_seq: int, now: datetime) -> Assignment:
        """The assignment in `envelope`, verified: schema, signature, device, seq, expiry (steps 1 to 3).

        When its seq is above `last_seq` the metadata are refreshed as well, must meet `meta_min`, and the signature must hold
        under the refreshed director keys (step 4): a director key that was replaced opens nothing. A repeat (equal seq)
        costs no network. Before the very first refresh there is no key, so one is made first.

        Args:
            envelope: the DSSE envelope as it came.
            last_seq: highest seq ever accepted here.
            now: trusted time.

        Raises:
            TrustError: `message_malformed`, `signature_invalid`, `wrong_device`, `assignment_replayed`,
                `assignment_expired`, `metadata_stale` or `metadata_invalid`.
            TransferError: the server did not answer; the same envelope may be tried again.
        """
        if not self._repository.known:
            self._repository.refresh(now)
        assignment = self._signed(envelope, now)
        check_assignment(assignment, device=self._facts.device, last_seq=last_seq, now=now)
        if assignment.seq > last_seq:
            self._repository.refresh(now)
            self._open(envelope)
            check_fresh(self._repository.versions(), assignment.meta_min)
        return assignment

    def manifest(
        self,
        slot: SlotAssignment,
        *,
        now: datetime,
        active_version: int,
        quarantined: Collection[str],
        meta_min: Mapping[str, int] | None = None,
    ) -> Manifest:
        """The slot's manifest: not revoked, listed, fetched and allowed on this device (steps 5 and 6).

        Refreshes first when the metadata are not fresh (after a restart, or when they expired meanwhile).

        Args:
            slot: from an assignment that `open` returned, now or before a restart.
            now: trusted time.
            active_version: version of the same model that is active in the slot; 0 when there is none.
            quarantined: digests that failed here before.
            meta_min: of that assignment; may be left out right after `open`.

        Raises:
            TrustError: `metadata_stale`, `metadata_invalid`, `version_revoked`, `version_not_listed`, `digest_mismatch`,
                `manifest_invalid`, `bench_only` or `version_older`.
            DeviceError: `incompatible`, `memory_short` or `quarantined`.
            TransferError: the server did not answer.
        """
        if not self._repository.fresh(now):
            self._repository.refresh(now)
        floor = self._repository.min_seq(slot.model)
        check_listed(slot, self._listed(slot, floor), floor, self._repository.versions(), meta_min or {})
        data = self._manifests.get(slot.sha256) or self._repository.download(slot.target)
        manifest = check_manifest(
            data, slot, active_version=active_version, device=self._facts, quarantined=quarantined
        )
        self._manifests = {slot.sha256: data}
        return manifest

    def manifest_bytes(self, slot: SlotAssignment) -> bytes:
        """The exact signed bytes of the slot's manifest, for the version's directory; no fetch right after `manifest`.

        Raises:
            TrustError, TransferError: as `manifest` does for listing and fetching.
        """
        return self._manifests.get(slot.sha256) or self._repository.download(slot.target)

    def _listed(self, slot: SlotAssignment, floor: int) -> TargetInfo | None:
        if slot.release_seq < floor:
            return None  # revoked: told as such, without fetching the role
        try:
            return self._repository.target(slot.target)
        except TrustError as error:
            if error.code == "version_not_listed":
                return None
            raise

    def _signed(self, envelope: bytes, now: datetime) -> Assignment:
        try:
            return self._open(envelope)
        except TrustError as error:
            if error.code != "signature_invalid" or not self._may_look(now):
                raise
            try:
                self._repository.refresh(now)  # the director's key may have been replaced
            except TransferError:
                raise error from None
        return self._open(envelope)

    def _may_look(self, now: datetime) -> bool:
        if self._looked is not None and abs(now - self._looked) < _LOOK_AGAIN:
            return False
        self._looked = now
        return True

    def _open(self, envelope: bytes) -> Assignment:
        return open_signed(envelope, Assignment, ASSIGNMENT_TYPE, self._repository.director_keys())
