"""What every release signed is verified by this one: metadata, manifest and assignment as they were written then."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from wavegate_agent.adapters.network.image_repository import ImageRepository
from wavegate_agent.adapters.network.verifier import Verifier
from wavegate_agent.core.verify import DeviceFacts
from wavegate_shared import __version__
from wavegate_shared.errors import TransferError, TrustError
from wavegate_shared.manifest import decode_manifest, encode_manifest

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
SIGNED_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
RELEASES = sorted(entry.name for entry in GOLDEN.iterdir())


def verifier_of(release: str, directory: Path) -> Verifier:
    def fetch(name: str, max_bytes: int) -> bytes:
        path = GOLDEN / release / name.replace("/", "__")
        if not path.is_file():
            raise TransferError("document_missing", name)
        return path.read_bytes()[:max_bytes]

    root = (GOLDEN / release / "trusted-root.json").read_bytes()
    images = ImageRepository(directory, root, fetch)
    return Verifier(images, DeviceFacts(device="kiosk-1", hardware_class="arm"))


def test_this_release_is_kept() -> None:
    """`python -m tests.support.write_golden` before a release adds its folder."""
    assert __version__ in RELEASES


@pytest.mark.parametrize("release", RELEASES)
def test_what_a_release_signed_is_installed(release: str, tmp_path: Path) -> None:
    verifier = verifier_of(release, tmp_path)
    assignment = verifier.open((GOLDEN / release / "assignment.json").read_bytes(), last_seq=0, now=SIGNED_AT)
    manifest = verifier.manifest(assignment.slots["main"], now=SIGNED_AT, active_version=0, quarantined=())
    kept = (GOLDEN / release / "manifest.json").read_bytes()
    assert manifest == decode_manifest(kept)


def test_the_manifest_of_this_release_is_written_byte_for_byte() -> None:
    kept = (GOLDEN / __version__ / "manifest.json").read_bytes()
    assert encode_manifest(decode_manifest(kept)) == kept


@pytest.mark.parametrize("release", RELEASES)
def test_a_changed_byte_is_refused(release: str, tmp_path: Path) -> None:
    verifier = verifier_of(release, tmp_path)
    envelope = (GOLDEN / release / "assignment.json").read_bytes()
    with pytest.raises(TrustError):
        verifier.open(envelope.replace(b'"sig":"', b'"sig":"A', 1), last_seq=0, now=SIGNED_AT)
