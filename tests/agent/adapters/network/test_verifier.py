"""Attack by attack: the runner's two calls refuse, and say why."""

import json
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.tuf_world import DEVICE, NOW, World, make_manifest, new_signer, slot_of
from wavegate_agent.adapters.network.image_repository import ImageRepository
from wavegate_agent.adapters.network.verifier import Verifier
from wavegate_agent.core.verify import DeviceFacts
from wavegate_shared.assignment import ASSIGNMENT_TYPE, TIME_TYPE, Assignment, TimeDocument
from wavegate_shared.dsse import seal
from wavegate_shared.errors import DeviceError, TransferError, TrustError, WavegateError
from wavegate_shared.manifest import Manifest


class Device:
    """A verifier with what the runner would remember."""

    def __init__(self, world: World, directory: Path, *, bench: bool = False) -> None:
        facts = DeviceFacts(device=DEVICE, hardware_class="arm", bench=bench, runtime="1.22.0", opset=21)
        self.repository = ImageRepository(directory, world.bootstrap, world.fetch)
        self.verifier = Verifier(self.repository, facts)

    def open(self, envelope: bytes, *, last_seq: int = 0, after: timedelta = timedelta(0)) -> Assignment:
        return self.verifier.open(envelope, last_seq=last_seq, now=NOW + after)

    def install(self, envelope: bytes, *, active: int = 0, bad: tuple[str, ...] = ()) -> Manifest:
        assignment = self.open(envelope)
        slot = assignment.slots["main"]
        return self.verifier.manifest(slot, now=NOW, active_version=active, quarantined=bad)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def device(world: World, tmp_path: Path) -> Device:
    return Device(world, tmp_path / "tuf")


def refused(error: type[WavegateError], code: str, call: Callable[[], object]) -> None:
    with pytest.raises(error) as caught:
        call()
    assert caught.value.code == code


def test_an_honest_assignment_of_an_honest_version(world: World, device: Device) -> None:
    data = world.publish(make_manifest(1))
    envelope = world.assign(slot_of(data), meta_min={"release/pairs": 2})
    assert device.install(envelope) == make_manifest(1)
    world.offline = True
    assert device.verifier.manifest_bytes(slot_of(data)) == data


def test_nothing_assigned(world: World, device: Device) -> None:
    assert device.open(world.assign()).slots == {}


class TestAssignment:
    """SlotWork 1 to 3."""

    @pytest.mark.parametrize(
        "junk", [b"", b"null", b"{}", b"[" * 5000, b"\x00" * 100, b'{"payload":1,"payloadType":2,"signatures":3}']
    )
    def test_not_an_envelope(self, device: Device, junk: bytes) -> None:
        refused(TrustError, "message_malformed", lambda: device.open(junk))

    def test_too_large(self, device: Device) -> None:
        refused(TrustError, "message_malformed", lambda: device.open(b" " * (2 << 20)))

    def test_unsigned(self, world: World, device: Device) -> None:
        envelope = json.loads(world.assign())
        envelope["signatures"] = []
        refused(TrustError, "signature_invalid", lambda: device.open(json.dumps(envelope).encode()))

    def test_signed_by_a_stranger(self, world: World, device: Device) -> None:
        refused(TrustError, "signature_invalid", lambda: device.open(world.assign(signer=new_signer())))

    @pytest.mark.parametrize("role", ["timestamp", "snapshot", "time", "release/pairs", "root-1"])
    def test_signed_by_another_roles_key(self, world: World, device: Device, role: str) -> None:
        refused(TrustError, "signature_invalid", lambda: device.open(world.assign(signer=world.signers[role])))

    def test_changed_after_signing(self, world: World, device: Device) -> None:
        envelope, other = json.loads(world.assign()), json.loads(world.assign(seq=2))
        envelope["payload"] = other["payload"]
        refused(TrustError, "signature_invalid", lambda: device.open(json.dumps(envelope).encode()))

    def test_a_directors_signature_on_another_kind_of_document(self, world: World, device: Device) -> None:
        document = TimeDocument(nonce="n" * 16, time=NOW)
        envelope = seal(document, TIME_TYPE, world.signers["director"])
        refused(TrustError, "message_malformed", lambda: device.open(envelope))

    def test_signed_but_not_the_schema(self, world: World, device: Device) -> None:
        document = TimeDocument(nonce="n" * 16, time=NOW)
        envelope = seal(document, ASSIGNMENT_TYPE, world.signers["director"])
        refused(TrustError, "message_malformed", lambda: device.open(envelope))

    def test_for_another_device(self, world: World, device: Device) -> None:
        refused(TrustError, "wrong_device", lambda: device.open(world.assign(device="kiosk-2")))

    def test_replayed(self, world: World, device: Device) -> None:
        refused(TrustError, "assignment_replayed", lambda: device.open(world.assign(seq=4), last_seq=5))

    def test_expired(self, world: World, device: Device) -> None:
        envelope = world.assign(expires=NOW + timedelta(hours=1))
        device.open(envelope)
        refused(TrustError, "assignment_expired", lambda: device.open(envelope, after=timedelta(hours=1)))

    def test_a_repeat_costs_no_network(self, world: World, device: Device) -> None:
        device.open(world.assign(seq=5))
        world.offline = True
        assert device.open(world.assign(seq=5), last_seq=5).seq == 5


class TestMetadata:
    """Step 4."""

    def test_the_assignment_asks_for_newer_metadata(self, world: World, device: Device) -> None:
        refused(TrustError, "metadata_stale", lambda: device.open(world.assign(meta_min={"targets": 9})))

    def test_frozen(self, world: World, device: Device) -> None:
        device.open(world.assign())
        refused(TrustError, "metadata_stale", lambda: device.open(world.assign(seq=2), after=timedelta(days=3)))

    def test_a_replaced_director_key_is_followed(self, world: World, device: Device) -> None:
        device.open(world.assign())
        world.signers["director"] = new_signer()
        world.sign_role("targets")
        world.sign_online()
        assert device.open(world.assign(seq=2), last_seq=1).seq == 2

    def test_a_stolen_director_key_that_was_replaced_opens_nothing(self, world: World, device: Device) -> None:
        """The device has not heard of the replacement yet: the refresh before the install tells it."""
        device.open(world.assign())
        stolen, world.signers["director"] = world.signers["director"], new_signer()
        world.sign_role("targets")
        world.sign_online()
        refused(TrustError, "signature_invalid", lambda: device.open(world.assign(seq=2, signer=stolen), last_seq=1))

    def test_forged_assignments_do_not_become_traffic(self, world: World, device: Device) -> None:
        device.open(world.assign())
        world.fetched.clear()
        for seq in range(2, 30):
            forged = world.assign(seq=seq, signer=new_signer())
            refused(TrustError, "signature_invalid", partial(device.open, forged))
        assert len(world.fetched) == 2  # one look for a newer key

    def test_a_forged_assignment_without_network_is_still_called_forged(self, world: World, device: Device) -> None:
        device.open(world.assign())
        world.offline = True
        refused(TrustError, "signature_invalid", lambda: device.open(world.assign(seq=2, signer=new_signer())))

    def test_no_network_at_the_first_assignment(self, world: World, device: Device) -> None:
        world.offline = True
        refused(TransferError, "not_connected", lambda: device.open(world.assign()))


class TestVersion:
    """SlotWork 5 and 6."""

    def test_not_listed(self, world: World, device: Device) -> None:
        refused(TrustError, "version_not_listed", lambda: device.install(world.assign(slot_of(b"never signed"))))

    def test_a_director_that_names_other_bytes(self, world: World, device: Device) -> None:
        data = world.publish(make_manifest(1))
        for lie in ({"length": len(data) + 1}, {"sha256": "0" * 64}):
            envelope = world.assign(slot_of(data, **lie))
            refused(TrustError, "version_not_listed", partial(device.install, envelope))

    def test_timestamp_and_snapshot_thieves_with_a_stolen_director(self, world: World, device: Device) -> None:
        """All online keys stolen, release key not: a forged version does not install."""
        evil = b"evil"
        world.list_target("release/pairs", "pairs/1.json", evil)
        world.signers["thief"] = new_signer()
        world.sign_role("release/pairs", signer="thief")
        world.sign_online()
        refused(TrustError, "metadata_invalid", lambda: device.install(world.assign(slot_of(evil))))

    def test_revoked(self, world: World, device: Device) -> None:
        data = world.publish(make_manifest(1))
        device.install(world.assign(slot_of(data)))
        world.revoke("pairs", below=2)
        refused(TrustError, "version_revoked", lambda: device.install(world.assign(slot_of(data))))

    def test_a_director_cannot_relabel_a_revoked_version(self, world: World, device: Device) -> None:
        data = world.publish(make_manifest(1))
        world.revoke("pairs", below=2)
        refused(TrustError, "manifest_invalid", lambda: device.install(world.assign(slot_of(data, release_seq=2))))

    def test_older_without_permission(self, world: World, device: Device) -> None:
        data = world.publish(make_manifest(1))
        refused(TrustError, "version_older", lambda: device.install(world.assign(slot_of(data)), active=2))
        assert device.install(world.assign(slot_of(data, allow_older=True)), active=2).version == 1

    def test_quarantined(self, world: World, device: Device) -> None:
        data = world.publish(make_manifest(1))
        slot = slot_of(data)
        refused(DeviceError, "quarantined", lambda: device.install(world.assign(slot), bad=(slot.sha256,)))

    def test_a_candidate_on_a_device_that_is_not_for_benching(
        self, world: World, device: Device, tmp_path: Path
    ) -> None:
        candidate: dict[str, Any] = {"role": "bench/arm", "path": "bench/arm/c1.json"}
        data = world.publish(make_manifest(9, bench_only=True), **candidate)
        envelope = world.assign(slot_of(data, version=9, target="bench/arm/c1.json"))
        refused(TrustError, "bench_only", lambda: device.install(envelope))
        assert Device(world, tmp_path / "other", bench=True).install(envelope).bench_only

    def test_a_bench_key_signs_nothing_that_goes_live(self, world: World, tmp_path: Path) -> None:
        data = world.publish(make_manifest(9), role="bench/arm", path="bench/arm/c1.json")
        envelope = world.assign(slot_of(data, version=9, target="bench/arm/c1.json"))
        refused(TrustError, "bench_only", lambda: Device(world, tmp_path / "tuf", bench=True).install(envelope))

    def test_after_a_restart_it_refreshes_by_itself(self, world: World, device: Device, tmp_path: Path) -> None:
        data = world.publish(make_manifest(1))
        slot = device.open(world.assign(slot_of(data))).slots["main"]
        again = Device(world, tmp_path / "tuf").verifier
        assert again.manifest(slot, now=NOW, active_version=0, quarantined=()).version == 1
