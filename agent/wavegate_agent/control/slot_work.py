"""How each piece of work of the machine is done, for one slot. Blocking calls on the runner's step thread.

`SlotWork.do(work, slot)` answers with the machine's next event, with `None` when the answer comes later (probation), or with
`AGAIN` when a newer assignment interrupted it. Errors are raised; the runner turns them into `Failed`. Everything can be
repeated after a crash: files are content-addressed, workers are gone with the agent.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime

import msgspec

from wavegate_agent.adapters.device.facts import memory_available_mb
from wavegate_agent.adapters.disk.version_store import Staging, VersionStore
from wavegate_agent.control.assignment_files import AssignmentFiles
from wavegate_agent.control.downloads import Downloads
from wavegate_agent.control.figures import Figures, FiguresFile
from wavegate_agent.control.idle_proof import IdleProof
from wavegate_agent.control.live_traffic import LiveTraffic
from wavegate_agent.control.ports import Gatekeeper, Host
from wavegate_agent.control.room import Room
from wavegate_agent.core.machine_types import (
    Arm,
    AssignedVersion,
    BenchCandidate,
    Commit,
    Discard,
    Done,
    Failed,
    Fallback,
    Fetch,
    Load,
    Preflight,
    ReadManifest,
    Remove,
    Revert,
    RunGolden,
    Slot,
    Swap,
    Verify,
    Version,
    Watch,
    Work,
)
from wavegate_agent.core.probation import Word
from wavegate_agent.core.verify import BENCH_PREFIX, check_may_go_live
from wavegate_shared.assignment import SlotAssignment
from wavegate_shared.errors import DeviceError, TrustError, WavegateError
from wavegate_shared.manifest import target_path

__all__ = ["AGAIN", "Interrupted", "SharedServices", "SlotWork"]

PROGRESS_S = 2.0


class Interrupted:
    """The work was cut short by something newer and is to be taken up again unless that changed the plan."""


AGAIN = Interrupted()


@dataclass(frozen=True, slots=True)
class SharedServices:
    """What the slots of a device share.

    Attributes:
        interrupted: whether something newer waits for the step thread.
        beat: called now and then by long work, so that the watchdog sees progress.
        room: what all models together keep on disk and take of the memory.
        progress: (slot name, share fetched) for the state event.
        waits: (slot name, what probation waits for, live requests so far) for the state event.
    """

    store: VersionStore
    verifier: Gatekeeper
    downloads: Downloads
    assignment_files: AssignmentFiles
    now: Callable[[], datetime]
    quarantined: Callable[[], Collection[str]]
    interrupted: Callable[[], bool]
    beat: Callable[[], None]
    room: Room
    progress: Callable[[str, float], None]
    waits: Callable[[str, str, int], None]


class SlotWork:
    """The work of one model's machine."""

    def __init__(
        self, name: str, services: SharedServices, make_host: Callable[[], Host], evidence: FiguresFile
    ) -> None:
        self._name = name
        self._services = services
        self._make_host = make_host
        self.host = make_host()
        self.live = LiveTraffic(lambda: self.host.collect())
        self.evidence = evidence
        self._idle = IdleProof(lambda sample: self.host.own_request(sample), services.now)
        self._do: dict[type[Work], Callable[[Slot], Done | Interrupted | None]] = {
            ReadManifest: self._read_manifest,
            Preflight: self._preflight,
            Fetch: self._fetch,
            Verify: self._verify,
            Load: self._load,
            RunGolden: self._golden,
            BenchCandidate: self._bench,
            Arm: self._arm,
            Swap: self._swap,
            Watch: self._watch,
            Commit: self._commit,
            Discard: self._discard,
            Remove: self._remove,
            Revert: self._revert,
            Fallback: self._fallback,
        }

    def do(self, work: Work, slot: Slot) -> Done | Interrupted | None:
        """Do one piece of work. Raises WavegateError or OSError."""
        answer = self._do[type(work)](slot)
        self.evidence.save()
        return answer

    def serve(self, version: Version) -> None:
        """Make an installed version serve at boot, its files checked first.

        Raises:
            TrustError: `digest_mismatch`.
            DeviceError: `load_failed`, `candidate_crashed`.
        """
        manifest = self._services.store.verify(version.sha256)
        self.host.start_live(self._services.store.directory(version.sha256), manifest)

    def look(self, slot: Slot) -> Done | Failed | None:
        """How the probation goes; None while there is nothing to say."""
        trial = self.live.trial
        if trial is None or slot.assigned is None:
            return None
        self.live.sample()
        verdict = trial.verdict(slot.assigned.probation)
        if verdict.word is Word.WAIT:
            said = self._idle.look(trial, slot.assigned.probation, verdict)
            if said is not None:
                self._services.waits(self._name, said, trial.counts.requests)
            return None
        self._note_trial(slot)
        if verdict.word is Word.PASS:
            return Done(slot.state)
        return Failed(slot.state, "probation_failed", verdict.reason)

    def figures(self, slot: Slot) -> Figures:
        """The evidence of the slot's assignment."""
        return self.evidence.of(slot.assigned.seq if slot.assigned is not None else 0)

    def status(self, slot: Slot) -> dict[str, object]:
        """The slot for `wavegate-agent status`."""
        active, standby, assigned = slot.active, slot.standby, slot.assigned
        return {
            "state": slot.state,
            "model": active.model if active else "",
            "version": active.version if active else 0,
            "serving": self.host.live_version,
            "standby": standby.version if standby else 0,
            "assigned": assigned.version.version if assigned else 0,
            "outcome": slot.outcome,
            "code": slot.code,
            "detail": slot.detail or (self._idle.waits_for if self.live.trial is not None else ""),
        }

    # --- before the swap ------------------------------------------------------------------------------------------------

    def _read_manifest(self, slot: Slot) -> Done:
        self._ready(slot)
        return Done(slot.state)

    def _ready(self, slot: Slot) -> None:
        """Verify the assignment and its manifests and begin to stage what is not installed."""
        assigned = _assigned_version(slot)
        now = self._services.now()
        assignment = self._services.verifier.open(
            self._services.assignment_files.read(assigned.file), last_seq=assigned.file, now=now
        )
        wanted = next((entry for entry in assignment.slots.values() if entry.model == self._name), None)
        if wanted is None or (wanted.sha256, wanted.target.startswith(BENCH_PREFIX)) != (
            assigned.version.sha256,
            assigned.bench,
        ):
            raise TrustError("message_malformed", f"assignment {assigned.file} on disk names another version")
        active = slot.active.version if slot.active is not None and slot.active.model == wanted.model else 0
        for part in _parts(wanted):
            self._services.verifier.manifest(
                part,
                now=now,
                active_version=0 if assigned.bench else active,  # what is only measured may be of any age
                quarantined=[] if wanted.override_quarantine else self._services.quarantined(),
                meta_min=assignment.meta_min,
            )
            if not self._services.store.holds(part.sha256):
                self._services.store.stage(part.sha256, self._services.verifier.manifest_bytes(part))

    def _digests(self, slot: Slot) -> list[str]:
        """Manifest digests the assignment needs on disk: its version, and in a bench round the original."""
        assigned = _assigned_version(slot)
        beside = self._services.assignment_files.beside(assigned.file).get(self._name) if assigned.bench else None
        return [assigned.version.sha256, *([beside] if beside else [])]

    def _stagings(self, slot: Slot) -> list[Staging]:
        """What is being staged; after a restart from disk alone, so that an install goes on without a network."""
        store = self._services.store
        missing = [sha256 for sha256 in self._digests(slot) if not store.holds(sha256)]
        if not all(store.resume(sha256) for sha256 in missing):
            self._ready(slot)
        return [staging for sha256 in missing if (staging := store.resume(sha256)) is not None]

    def _preflight(self, slot: Slot) -> Done:
        stagings = self._stagings(slot)
        wanted, available = sum(staging.manifest.requires.memory_mb for staging in stagings), memory_available_mb()
        if available is not None and wanted > available:
            raise DeviceError("memory_short", f"needs {wanted} MB beside the active version, {available} MB are free")
        self._services.room.check_budget(self._name, wanted)
        for staging in stagings:
            staging.reserve()
        return Done(slot.state, short=not stagings)

    def _fetch(self, slot: Slot) -> Done | Interrupted:
        stagings = self._stagings(slot)
        missing = sum(staging.reserve() for staging in stagings)
        total, figures = max(1, sum(staging.manifest.size_bytes for staging in stagings)), self.figures(slot)
        done = {"bytes": total - missing, "said": time.monotonic()}

        def arrived(size: int) -> None:
            figures.bytes_fetched += size
            done["bytes"] += size
            self._services.beat()
            if time.monotonic() - done["said"] > PROGRESS_S:
                done["said"] = time.monotonic()
                self._services.progress(self._name, done["bytes"] / total)

        for staging in stagings:
            for artifact in staging.manifest.artifacts:
                self._services.downloads.chunks(staging, artifact, stop=self._services.interrupted, progress=arrived)
                if self._services.interrupted():
                    return AGAIN
        return Done(slot.state)

    def _verify(self, slot: Slot) -> Done:
        for staging in self._stagings(slot):
            staging.finish()
        return Done(slot.state)

    def _load(self, slot: Slot) -> Done:
        sha256 = _assigned_version(slot).version.sha256
        manifest = self._services.store.verify(sha256)
        self.host.discard_candidate()
        self.figures(slot).load_ms = self.host.load_candidate(self._services.store.directory(sha256), manifest)
        for beside in self._digests(slot)[1:]:
            original = self._services.store.verify(beside)
            self.host.load_original(self._services.store.directory(beside), original)
        return Done(slot.state)

    def _golden(self, slot: Slot) -> Done:
        result = self.figures(slot).golden = self.host.golden()
        if not result.passed:
            raise DeviceError(
                "golden_failed", f"{_number(result.value)} on {result.samples} samples, the limit is {result.limit:g}"
            )
        return Done(slot.state, short=_assigned_version(slot).allow_older)

    def _bench(self, slot: Slot) -> Done | Interrupted:
        try:
            bench = self.host.bench(self._services.interrupted)
        except DeviceError:
            if self._services.interrupted():  # stopped before the first pair: says nothing about the candidate
                return AGAIN
            raise
        if self._services.interrupted():
            return AGAIN
        self.figures(slot).bench = bench
        if _assigned_version(slot).bench:  # the server judges; nothing here depends on it
            return Done(slot.state, short=True)
        manifest = self._services.store.verify(_assigned_version(slot).version.sha256)
        # Wall time beside live traffic says little; CPU time above the promised latency says that it cannot be kept.
        if manifest.slo.p95_ms is not None and bench.cpu_ms > manifest.slo.p95_ms:
            raise DeviceError("bench_failed", f"{bench.cpu_ms:.1f} ms CPU, promised p95 {manifest.slo.p95_ms:g} ms")
        peak = manifest.slo.peak_memory_mb
        if peak is not None and bench.anon_mb is not None and bench.anon_mb > peak:
            raise DeviceError("bench_failed", f"{bench.anon_mb:.0f} MB anonymous memory, promised {peak:g} MB")
        return Done(slot.state)

    def _arm(self, slot: Slot) -> Done:
        assigned = _assigned_version(slot)
        manifest = self._services.store.verify(assigned.version.sha256)
        if assigned.bench:
            raise TrustError("bench_only", "an assignment to measure a version does not let it serve")
        check_may_go_live(manifest, _slot_assignment(assigned))
        return Done(slot.state)

    # --- the swap and after ---------------------------------------------------------------------------------------------

    def _swap(self, slot: Slot) -> Done:
        self.live.sample()
        figures = self.figures(slot)
        figures.set_yardstick(self.live.before(self.host.live_version))
        figures.swap_ms = self.host.swap()
        return Done(slot.state)

    def _watch(self, slot: Slot) -> None:
        self.live.begin(_assigned_version(slot).version.version, self.figures(slot).yardstick())

    def _commit(self, slot: Slot) -> Done:
        self.host.release_standby()
        self._tidy()
        return Done(slot.state)

    def _discard(self, slot: Slot) -> Done:
        self.host.discard_candidate()
        self._tidy()
        return Done(slot.state)

    def _revert(self, slot: Slot) -> Done:
        if self.live.trial is not None:
            self._note_trial(slot)
        if slot.standby is None:  # a first version that failed: back to serving nothing
            self.host.close()
            self.host = self._make_host()
            return Done(slot.state)
        manifest = self._services.store.verify(slot.standby.sha256)
        try:
            self.host.revert()
        except WavegateError:  # after a restart of the agent the host knows no version before
            self.host.start_live(self._services.store.directory(slot.standby.sha256), manifest)
        return Done(slot.state)

    def _remove(self, slot: Slot) -> Done:
        self.live.end()
        self.host.close()
        return Done(slot.state)

    def _fallback(self, slot: Slot) -> Done:
        bad, tried = set(self._services.quarantined()), []
        known = [v for v in (slot.standby, slot.spare, slot.active) if v is not None]
        # Quarantined ones come last: better a version that misbehaved than nothing at all.
        for version in sorted(known, key=lambda v: v.sha256 in bad):
            self._services.beat()
            try:
                self.serve(version)
            except WavegateError as error:
                tried.append(f"{version.model} {version.version}: {error}")
                continue
            self.live.end()
            return Done(slot.state, version=version)
        raise DeviceError("broken", "; ".join(tried) or "no version on disk")

    def _tidy(self) -> None:
        self.live.end()
        self._services.store.keep_only(self._services.room.kept())
        self._services.assignment_files.tidy()

    def _note_trial(self, slot: Slot) -> None:
        trial, figures = self.live.end(), self.figures(slot)
        if trial is not None:
            figures.served, figures.errors = trial.counts.requests, trial.counts.errors
            figures.self_requests = trial.own.requests
            figures.probation_s = round(trial.seconds, 1)
            figures.p99_ms = trial.counts.latency.quantile(0.99)


def _assigned_version(slot: Slot) -> AssignedVersion:
    if slot.assigned is None:
        raise DeviceError("agent_failed", f"no assignment in {slot.state}")
    return slot.assigned


def _parts(wanted: SlotAssignment) -> list[SlotAssignment]:
    """What an assignment names, each to be verified like an assigned version."""
    beside = wanted.beside
    return [wanted] if beside is None else [wanted, SlotAssignment(**msgspec.structs.asdict(beside))]


def _slot_assignment(assigned: AssignedVersion) -> SlotAssignment:
    """The assigned version as the director's words; a bench candidate's other path shows in its manifest."""
    version = assigned.version
    return SlotAssignment(
        model=version.model,
        target=target_path(version.model, version.version),
        length=1,
        sha256=version.sha256,
        release_seq=version.version,
        allow_older=assigned.allow_older,
    )


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:g}"
