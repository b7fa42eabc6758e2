"""Each rule alone refuses: everything else in the case is right."""

from typing import Any

import pytest

from tests.support.tuf_world import DEVICE, make_manifest, slot_of
from wavegate_agent.core.verify import (
    DeviceFacts,
    TargetInfo,
    check_fresh,
    check_listed,
    check_manifest,
    check_may_go_live,
)
from wavegate_shared.errors import DeviceError, TrustError, WavegateError
from wavegate_shared.manifest import Manifest, Requires, encode_manifest

FACTS = DeviceFacts(device=DEVICE, hardware_class="arm", runtime="1.22.0", opset=21, memory_mb=512)
BENCHER = DeviceFacts(device=DEVICE, hardware_class="arm", bench=True)
CANDIDATE = make_manifest(7, bench_only=True)


def check(manifest: Manifest, *, device: DeviceFacts = FACTS, active: int = 0, bad: Any = (), **slot: Any) -> Manifest:
    data = encode_manifest(manifest)
    assigned = slot_of(data, version=manifest.version, **slot)
    return check_manifest(data, assigned, active_version=active, device=device, quarantined=bad)


def refused(error: type[WavegateError], code: str, manifest: Manifest, **options: Any) -> None:
    with pytest.raises(error) as caught:
        check(manifest, **options)
    assert caught.value.code == code


def test_a_fitting_manifest_passes() -> None:
    assert check(make_manifest(3), active=2).version == 3


def test_the_same_version_again_passes() -> None:
    assert check(make_manifest(3), active=3).version == 3


class TestListed:
    slot = slot_of(b"manifest", version=4)
    listed = TargetInfo(slot.length, slot.sha256)

    def refused(self, code: str, listed: TargetInfo | None, min_seq: int = 0, **meta_min: int) -> None:
        with pytest.raises(TrustError) as caught:
            check_listed(self.slot, listed, min_seq, {"targets": 5}, meta_min)
        assert caught.value.code == code

    def test_agreement_passes(self) -> None:
        check_listed(self.slot, self.listed, 4, {"targets": 5}, {"targets": 5})

    def test_not_listed(self) -> None:
        self.refused("version_not_listed", None)

    def test_other_length(self) -> None:
        self.refused("version_not_listed", TargetInfo(self.slot.length + 1, self.slot.sha256))

    def test_other_digest(self) -> None:
        self.refused("version_not_listed", TargetInfo(self.slot.length, "0" * 64))

    def test_below_min_seq_is_told_as_revoked(self) -> None:
        self.refused("version_revoked", None, min_seq=5)

    def test_metadata_older_than_asked_for(self) -> None:
        self.refused("metadata_stale", self.listed, targets=6)

    def test_a_role_that_is_not_known_is_stale(self) -> None:
        with pytest.raises(TrustError, match="release/pairs is version 0"):
            check_fresh({"targets": 5}, {"release/pairs": 1})


class TestIdentity:
    def test_other_bytes_than_assigned(self) -> None:
        data = encode_manifest(make_manifest(1))
        slot = slot_of(data)
        with pytest.raises(TrustError) as caught:
            check_manifest(data + b" ", slot, active_version=0, device=FACTS, quarantined=())
        assert caught.value.code == "digest_mismatch"

    def test_not_a_manifest(self) -> None:
        with pytest.raises(TrustError) as caught:
            check_manifest(b"{}", slot_of(b"{}"), active_version=0, device=FACTS, quarantined=())
        assert caught.value.code == "manifest_invalid"

    def test_another_model_under_the_assigned_name(self) -> None:
        refused(TrustError, "manifest_invalid", make_manifest(1), model="other")

    def test_another_number_than_assigned(self) -> None:
        refused(TrustError, "manifest_invalid", make_manifest(1), release_seq=2)

    def test_another_versions_path(self) -> None:
        refused(TrustError, "manifest_invalid", make_manifest(1), target="pairs/2.json")


class TestBench:
    path = "bench/arm/c7.json"

    def test_a_device_enrolled_for_benching_takes_a_candidate(self) -> None:
        assert check(CANDIDATE, device=BENCHER, target=self.path).bench_only

    def test_other_devices_do_not(self) -> None:
        refused(TrustError, "bench_only", CANDIDATE, target=self.path)

    def test_nor_one_of_another_class(self) -> None:
        refused(TrustError, "bench_only", CANDIDATE, device=BENCHER, target="bench/x86/c7.json")

    def test_a_bench_key_cannot_sign_a_release(self) -> None:
        refused(TrustError, "bench_only", make_manifest(7), device=BENCHER, target=self.path)

    def test_a_candidate_among_the_releases_is_refused(self) -> None:
        refused(TrustError, "bench_only", CANDIDATE, device=BENCHER)

    def test_a_candidate_never_goes_live(self) -> None:
        slot = slot_of(b"x", version=7, target=self.path)
        with pytest.raises(TrustError, match="bench_only"):
            check_may_go_live(CANDIDATE, slot)
        with pytest.raises(TrustError, match="bench_only"):
            check_may_go_live(make_manifest(7), slot)
        check_may_go_live(make_manifest(7), slot_of(b"x", version=7))


@pytest.mark.parametrize(
    ("requires", "code"),
    [
        (Requires(classes=["x86"]), "incompatible"),
        (Requires(runtime_min="1.23"), "incompatible"),
        (Requires(opset=22), "incompatible"),
        (Requires(domains=["com.example"]), "incompatible"),
        (Requires(providers=["CUDAExecutionProvider"]), "incompatible"),
        (Requires(memory_mb=513), "memory_short"),
    ],
)
def test_what_the_device_lacks(requires: Requires, code: str) -> None:
    refused(DeviceError, code, make_manifest(1, requires=requires))


def test_what_the_device_has() -> None:
    requires = Requires(
        classes=["arm"],
        runtime_min="1.9.5",
        opset=21,
        domains=["ai.onnx"],
        providers=["CPUExecutionProvider"],
        memory_mb=512,
    )
    assert check(make_manifest(1, requires=requires)).requires == requires


def test_an_unknown_runtime_is_not_new_enough() -> None:
    unknown = DeviceFacts(device=DEVICE, hardware_class="arm")
    refused(DeviceError, "incompatible", make_manifest(1, requires=Requires(runtime_min="1.0")), device=unknown)


def test_older_than_active() -> None:
    refused(TrustError, "version_older", make_manifest(2), active=3)


def test_older_with_a_signed_permission() -> None:
    assert check(make_manifest(2), active=3, allow_older=True).version == 2


class TestQuarantine:
    manifest = make_manifest(2)

    def test_a_manifest_that_failed_here(self) -> None:
        digest = slot_of(encode_manifest(self.manifest)).sha256
        refused(DeviceError, "quarantined", self.manifest, bad={digest})

    def test_a_model_file_that_failed_here_under_a_new_number(self) -> None:
        refused(DeviceError, "quarantined", self.manifest, bad=[self.manifest.artifact("model").sha256])

    def test_a_signed_override(self) -> None:
        bad = [self.manifest.artifact("model").sha256]
        assert check(self.manifest, bad=bad, override_quarantine=True).version == 2
