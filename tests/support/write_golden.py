"""`python -m tests.support.write_golden`: keep what this release signs, for all later ones to verify.

Writes `tests/agent/golden/<version>/`: every document a device fetches to install a version (TUF metadata and the manifest), the root
it trusts from, and a sealed assignment. The keys are made for it and thrown away. A release that has its folder keeps it.
"""

import sys
import tempfile
from datetime import timedelta
from pathlib import Path

from tests.support.trust import NOW, make_repository
from tests.support.tuf_world import DEVICE, make_manifest, slot_of
from wavegate_agent.adapters.network.image_repository import ImageRepository as DeviceRepository
from wavegate_agent.adapters.network.verifier import Verifier
from wavegate_agent.core.verify import DeviceFacts
from wavegate_server.adapters.trust.director import Director
from wavegate_shared import __version__
from wavegate_shared.assignment import Assignment
from wavegate_shared.errors import TransferError
from wavegate_shared.manifest import encode_manifest

__all__ = ["main"]

FOLDER = Path(__file__).resolve().parents[1] / "agent" / "golden"


def main() -> int:
    """Write the folder of this release; exit code 1 when it is there."""
    target = FOLDER / __version__
    if target.exists():
        print(f"{target.name} is kept already: a golden file is never written again", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as scratch:
        documents: dict[str, bytes] = {}
        repository = make_repository(Path(scratch) / "server")
        data = encode_manifest(make_manifest(1))
        repository.publish("pairs", 1, data, NOW)

        def fetch(name: str, max_bytes: int) -> bytes:
            found = repository.read(name)
            if found is None:
                raise TransferError("document_missing", name)
            documents[name] = found
            return found[:max_bytes]

        slot = slot_of(data)
        assignment = Assignment(
            device=DEVICE, seq=1, issued=NOW, expires=NOW + timedelta(days=7), slots={"main": slot},
            meta_min=repository.meta_min(slot.model),
        )  # fmt: skip
        envelope = Director.from_keys(repository.keys).seal(assignment)
        device = DeviceRepository(Path(scratch) / "device", repository.root_bytes(), fetch)
        verifier = Verifier(device, DeviceFacts(device=DEVICE, hardware_class="arm"))
        opened = verifier.open(envelope, last_seq=0, now=NOW)
        verifier.manifest(opened.slots["main"], now=NOW, active_version=0, quarantined=())
        documents |= {"trusted-root.json": repository.root_bytes(), "assignment.json": envelope, "manifest.json": data}
    target.mkdir(parents=True)
    for name, content in documents.items():
        (target / name.replace("/", "__")).write_bytes(content)
    print(f"kept {len(documents)} documents of {target.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
