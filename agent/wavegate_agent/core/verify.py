"""The middle of the verification order, as pure checks: listed, allowed here, and not a step back.

The order on the agent stops at the first failure and names it by its code:
    1 size and schema, 2 director's signature, 3 device, seq, expiry   `wavegate_shared.dsse`, `wavegate_shared.assignment`
    4 metadata as new as the assignment asks for                       `check_fresh`
    5 not revoked; listed with the same length and digest              `check_listed`
    6 manifest's own word: model, bench rule, hardware, runtime,
      opset, memory; not older; not quarantined                        `check_manifest`
    7 a candidate for benching never goes live                         `check_may_go_live`, right before the swap
Free space, chunks, whole digests, the candidate's trial and the swap follow in the runner. Not here: where metadata and keys
come from (`adapters/network/image_repository.py`) and the composition (`adapters/network/verifier.py`).

Source: Uptane standard 2.0, "full verification"; the two repositories must agree.
"""

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from wavegate_shared.assignment import SlotAssignment
from wavegate_shared.errors import DeviceError, TrustError
from wavegate_shared.manifest import Manifest, Requires, decode_manifest, target_path

__all__ = [
    "BENCH_PREFIX",
    "DEFAULT_DOMAINS",
    "DeviceFacts",
    "TargetInfo",
    "check_fresh",
    "check_listed",
    "check_manifest",
    "check_may_go_live",
]

BENCH_PREFIX = "bench/"
"""Target paths of candidates for benching: `bench/<hardware class>/<name>.json`, signed by role `bench/<hardware class>`."""
DEFAULT_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Operator domains every ONNX Runtime build brings."""


@dataclass(frozen=True, slots=True)
class TargetInfo:
    """What the signed release list says of a manifest. Attributes: length in bytes, sha256 in hex."""

    length: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What this device is, as far as a manifest may ask.

    Attributes:
        device: its id.
        hardware_class: as enrolled.
        bench: enrolled for benching candidates.
        runtime: version of ONNX Runtime, as "1.22.0"; empty when unknown.
        opset: highest opset of the default domain it runs; 0 when unknown, then the candidate's load decides.
        domains: operator domains its runtime brings.
        providers: execution providers its runtime brings.
        memory_mb: total memory; 0 when unknown, then the candidate's trial decides.
    """

    device: str
    hardware_class: str
    bench: bool = False
    runtime: str = ""
    opset: int = 0
    domains: tuple[str, ...] = DEFAULT_DOMAINS
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    memory_mb: int = 0


def check_fresh(versions: Mapping[str, int], meta_min: Mapping[str, int]) -> None:
    """Step 4: every role's metadata is at least as new as the assignment asks for.

    Raises:
        TrustError: `metadata_stale`.
    """
    for role, wanted in sorted(meta_min.items()):
        have = versions.get(role, 0)
        if have < wanted:
            raise TrustError("metadata_stale", f"{role} is version {have}, the assignment asks for {wanted}")


def check_listed(
    slot: SlotAssignment,
    listed: TargetInfo | None,
    min_seq: int,
    versions: Mapping[str, int],
    meta_min: Mapping[str, int],
) -> None:
    """Steps 4 and 5: fresh metadata, not revoked, and director and release list name the same bytes.

    Revocation is told before absence: a revoked version is both below `min_seq` and gone from the list.

    Args:
        slot: what the director picked.
        listed: what the release list says of `slot.target`; None when it is not there.
        min_seq: lowest `release_seq` of the model that is not revoked.
        versions: metadata versions here, by role.
        meta_min: lowest acceptable ones, from the assignment.

    Raises:
        TrustError: `metadata_stale`, `version_revoked` or `version_not_listed`.
    """
    check_fresh(versions, meta_min)
    if slot.release_seq < min_seq:
        raise TrustError("version_revoked", f"{slot.model} {slot.release_seq}: everything below {min_seq} is revoked")
    if listed is None:
        raise TrustError("version_not_listed", f"{slot.target} is not in the signed release list")
    if (listed.length, listed.sha256) != (slot.length, slot.sha256):
        raise TrustError("version_not_listed", f"{slot.target}: the assignment names other bytes than the release list")


def check_manifest(
    data: bytes,
    slot: SlotAssignment,
    *,
    active_version: int,
    device: DeviceFacts,
    quarantined: Collection[str],
) -> Manifest:
    """Step 6: the manifest, when it is the assigned one and may be tried on this device.

    Args:
        data: the manifest's bytes, as fetched.
        slot: what was assigned; `check_listed` has passed for it.
        active_version: version of the same model that is active in the slot; 0 when there is none.
        device: this device.
        quarantined: digests (manifest or model artifact, hex) that failed here before.

    Raises:
        TrustError: `digest_mismatch`, `manifest_invalid`, `bench_only` or `version_older`.
        DeviceError: `incompatible`, `memory_short` or `quarantined`.
    """
    if len(data) != slot.length or hashlib.sha256(data).hexdigest() != slot.sha256:
        raise TrustError("digest_mismatch", f"{slot.target}: these are not the assigned bytes")
    manifest = decode_manifest(data)
    _check_identity(manifest, slot, device)
    _check_requires(manifest.requires, device)
    if manifest.version < active_version and not slot.allow_older:
        raise TrustError("version_older", f"{manifest.model} {manifest.version}, active is {active_version}")
    _check_quarantine(manifest, slot, quarantined)
    return manifest


def check_may_go_live(manifest: Manifest, slot: SlotAssignment) -> None:
    """Step 7: raises TrustError `bench_only` for a candidate that was signed for benching only."""
    if manifest.bench_only or slot.target.startswith(BENCH_PREFIX):
        raise TrustError(
            "bench_only", f"{manifest.model} {manifest.version} was signed for benching, not for going live"
        )


def _check_identity(manifest: Manifest, slot: SlotAssignment, device: DeviceFacts) -> None:
    if (manifest.model, manifest.version) != (slot.model, slot.release_seq):
        raise TrustError(
            "manifest_invalid",
            f"the manifest is {manifest.model} {manifest.version}, assigned is {slot.model} {slot.release_seq}",
        )
    if not slot.target.startswith(BENCH_PREFIX):
        if slot.target != target_path(manifest.model, manifest.version):
            raise TrustError("manifest_invalid", f"{slot.target} is not the path of {slot.model} {slot.release_seq}")
        if manifest.bench_only:
            raise TrustError("bench_only", f"{slot.target} is for benching but stands among the releases")
        return
    if not manifest.bench_only:
        raise TrustError("bench_only", f"{slot.target} was signed by a bench key but is not marked for benching only")
    if not device.bench or not slot.target.startswith(f"{BENCH_PREFIX}{device.hardware_class}/"):
        raise TrustError("bench_only", f"{device.device} is not enrolled for benching {slot.target}")


def _check_requires(requires: Requires, device: DeviceFacts) -> None:
    for problem in (
        _lacks("hardware class", requires.classes and device.hardware_class not in requires.classes, requires.classes),
        _lacks("runtime", requires.runtime_min and _older(device.runtime, requires.runtime_min), requires.runtime_min),
        _lacks("opset", requires.opset > device.opset > 0, requires.opset),
        _lacks("operator domain", set(requires.domains) - set(device.domains), requires.domains),
        _lacks("execution provider", set(requires.providers) - set(device.providers), requires.providers),
    ):
        if problem:
            raise DeviceError("incompatible", f"{problem}; this is {device}")
    if requires.memory_mb > device.memory_mb > 0:
        raise DeviceError("memory_short", f"needs {requires.memory_mb} MB, this device has {device.memory_mb} MB")


def _lacks(what: str, missing: object, wanted: object) -> str:
    return f"{what}: needs {wanted}" if missing else ""


def _check_quarantine(manifest: Manifest, slot: SlotAssignment, quarantined: Collection[str]) -> None:
    if slot.override_quarantine:
        return
    digests = [slot.sha256, *(artifact.sha256 for artifact in manifest.artifacts if artifact.role == "model")]
    for digest in digests:
        if digest in quarantined:
            raise DeviceError("quarantined", f"{manifest.model} {manifest.version} ({digest[:12]}) failed here before")


def _older(have: str, wanted: str) -> bool:
    return _numbers(have) < _numbers(wanted)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])
