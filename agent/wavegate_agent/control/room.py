"""What all models of the device together keep on the disk and take of the memory."""

from typing import Protocol

from wavegate_agent.adapters.disk.version_store import VersionStore
from wavegate_agent.control.assignment_files import AssignmentFiles
from wavegate_agent.core.journal_format import Record
from wavegate_shared.errors import DeviceError

__all__ = ["Room"]


class _Remembers(Protocol):
    record: Record


class Room:
    """Disk and memory over all models.

    Args:
        machines: their record says what is active, kept and assigned.
        store: the versions on disk.
        assignment_files: says what a bench candidate is measured beside.
        budget_mb: what the active versions and a candidate may take together; None: no limit but what is free.
    """

    def __init__(
        self, machines: _Remembers, store: VersionStore, assignment_files: AssignmentFiles, budget_mb: int | None
    ) -> None:
        self._machines, self._store, self._assignment_files = machines, store, assignment_files
        self._budget_mb = budget_mb

    def kept(self) -> set[str]:
        """Manifest digests that must stay on disk."""
        slots = self._machines.record.slots
        kept = {version.sha256 for slot in slots.values() for version in slot.kept}
        for name, slot in slots.items():  # the original stays for the round's next candidate
            if slot.assigned is not None and slot.assigned.bench:
                kept |= {
                    digest for at, digest in self._assignment_files.beside(slot.assigned.file).items() if at == name
                }
        return kept

    def check_budget(self, model: str, needed_mb: int) -> None:
        """Whether the memory budget has room for a candidate of `needed_mb` beside every active version.

        Raises:
            DeviceError: `memory_short`.
        """
        if self._budget_mb is None:
            return
        active = [slot.active for slot in self._machines.record.slots.values() if slot.active is not None]
        manifests = [self._store.manifest(version.sha256) for version in active]
        taken = sum(manifest.requires.memory_mb for manifest in manifests if manifest is not None)
        if taken + needed_mb > self._budget_mb:
            raise DeviceError(
                "memory_short",
                f"{model} needs {needed_mb} MB beside {taken} MB of active versions; the budget is {self._budget_mb} MB",
            )
