"""The server's keys, release list and director against the agent's verification order: both sides real, no carrier between."""

from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.trust import NOW, make_repository
from tests.support.tuf_world import DEVICE, make_manifest, slot_of
from wavegate_agent.adapters.network.image_repository import ImageRepository as DeviceRepository
from wavegate_agent.adapters.network.verifier import Verifier
from wavegate_agent.core.verify import DeviceFacts
from wavegate_server.adapters.trust.director import Director
from wavegate_server.adapters.trust.image_repository import ImageRepository
from wavegate_server.adapters.trust.key_rotation import rotate
from wavegate_shared.assignment import TIME_TYPE, Assignment, SlotAssignment, TimeDocument
from wavegate_shared.dsse import open_signed
from wavegate_shared.errors import TransferError, TrustError
from wavegate_shared.manifest import Manifest, encode_manifest

V1, V2 = encode_manifest(make_manifest(1)), encode_manifest(make_manifest(2))


class Fleet:
    """One server and one device. Attributes: fetched (bytes of each document the device asked for)."""

    def __init__(self, directory: Path) -> None:
        self.repository: ImageRepository = make_repository(directory / "server")
        self.fetched: list[int] = []
        self.seq = 0
        root = self.repository.root_bytes()
        self.images = DeviceRepository(directory / "device", root, self._fetch)
        self.verifier = Verifier(self.images, DeviceFacts(device=DEVICE, hardware_class="arm", bench=True))

    def _fetch(self, name: str, max_bytes: int) -> bytes:
        data = self.repository.read(name)
        self.fetched.append(len(data or b""))
        if data is None:
            raise TransferError("document_missing", name)
        return data[:max_bytes]

    def order(self, slot: SlotAssignment) -> bytes:
        self.seq += 1
        assignment = Assignment(
            device=DEVICE,
            seq=self.seq,
            issued=NOW,
            expires=NOW + timedelta(days=7),
            slots={"main": slot},
            meta_min=self.repository.meta_min(slot.model),
        )
        return Director.from_keys(self.repository.keys).seal(assignment)

    def install(self, envelope: bytes, *, active: int = 0) -> Manifest:
        assignment = self.verifier.open(envelope, last_seq=0, now=NOW)
        return self.verifier.manifest(assignment.slots["main"], now=NOW, active_version=active, quarantined=())


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    made = Fleet(tmp_path)
    made.repository.publish("pairs", 1, V1, NOW)
    return made


def test_a_published_version_is_installed(fleet: Fleet) -> None:
    assert fleet.install(fleet.order(slot_of(V1))) == make_manifest(1)


def test_bytes_stay_small(fleet: Fleet) -> None:
    fleet.install(fleet.order(slot_of(V1)))
    assert sum(fleet.fetched) < 4096
    fleet.fetched.clear()
    fleet.images.refresh(NOW + timedelta(hours=1))
    assert sum(fleet.fetched) < 480


def test_a_second_version_and_back(fleet: Fleet) -> None:
    fleet.repository.publish("pairs", 2, V2, NOW)
    fleet.install(fleet.order(slot_of(V2, version=2)), active=1)
    with pytest.raises(TrustError, match="version_older"):
        fleet.install(fleet.order(slot_of(V1)), active=2)
    assert fleet.install(fleet.order(slot_of(V1, allow_older=True)), active=2).version == 1


def test_a_revoked_version(fleet: Fleet) -> None:
    fleet.repository.publish("pairs", 2, V2, NOW)
    fleet.repository.revoke("pairs", 1, NOW, min_seq=2)
    with pytest.raises(TrustError, match="version_revoked"):
        fleet.install(fleet.order(slot_of(V1, allow_older=True)), active=2)


def test_a_withdrawn_version(fleet: Fleet) -> None:
    fleet.repository.revoke("pairs", 1, NOW)
    with pytest.raises(TrustError, match="version_not_listed"):
        fleet.install(fleet.order(slot_of(V1)))


def test_a_candidate_for_benching(fleet: Fleet) -> None:
    data = encode_manifest(make_manifest(9, bench_only=True))
    path = fleet.repository.publish_bench("arm", "c9", data, NOW)
    assert fleet.install(fleet.order(slot_of(data, version=9, target=path))).bench_only


@pytest.mark.parametrize("role", ["root-1", "targets", "snapshot", "timestamp", "release", "director"])
def test_every_key_can_be_replaced_under_a_living_device(fleet: Fleet, role: str) -> None:
    fleet.install(fleet.order(slot_of(V1)))
    stolen = Director.from_keys(fleet.repository.keys)
    rotate(fleet.repository, role, NOW)
    assert fleet.install(fleet.order(slot_of(V1))).version == 1
    if role == "director":
        order = Assignment(device=DEVICE, seq=99, issued=NOW, expires=NOW + timedelta(days=7))
        with pytest.raises(TrustError, match="signature_invalid"):
            fleet.verifier.open(stolen.seal(order), last_seq=0, now=NOW)


def test_the_time_answer_opens_with_keys_that_have_expired(fleet: Fleet, tmp_path: Path) -> None:
    """Years of sleep and a lost clock: the stored time key still tells who may say what time it is."""
    fleet.images.refresh(NOW)
    root = fleet.repository.read("metadata/1.root.json")
    assert root is not None
    asleep = DeviceRepository(tmp_path / "device", root, fleet._fetch)
    later = NOW + timedelta(days=900)
    answer = Director.from_keys(fleet.repository.keys).answer_time("0123456789abcdef", later)
    assert open_signed(answer, TimeDocument, TIME_TYPE, asleep.time_keys()).time == later
