"""From bundles to a bench round: artifacts stored, manifests made that no device lets serve, the round put into the queue.

A candidate's number is `FIRST_NUMBER` and up: above every version's, so that nothing takes it for one. Its bytes go to
devices over the same way as a version's, but only while the round runs and only under the bench role's signature.
"""

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
from sqlalchemy import Engine

from wavegate_server.adapters.database.connection import write
from wavegate_server.adapters.files.bundles import Bundle, open_bundle
from wavegate_server.adapters.files.objects import Objects
from wavegate_server.adapters.store.bench_rounds import NewCandidate, create_round
from wavegate_server.compress.measure.samples import count_samples
from wavegate_server.core.bundle_spec import artifact_roles, build_manifest
from wavegate_server.services.registry import store_artifact
from wavegate_shared.errors import UsageError
from wavegate_shared.manifest import Manifest

__all__ = ["FIRST_NUMBER", "ORIGINAL", "RoundSettings", "start_round"]

FIRST_NUMBER = 1_000_000
ORIGINAL = "original"
_MAX_NAME = 100


@dataclass(frozen=True, slots=True)
class RoundSettings:
    """Attributes: hardware class, seconds a candidate may take, seconds to wait for a device."""

    hardware_class: str
    timeout_s: float = 300.0
    wait_s: float = 120.0


def start_round(
    engine: Engine,
    objects: Objects,
    original: Path,
    candidates: Mapping[str, Path],
    settings: RoundSettings,
    *,
    actor: str,
    now: datetime,
) -> str:
    """Queue a round of bundles (directories or zips); gives its id.

    Raises:
        UsageError: `bundle_invalid`, `invalid`, or `conflict` when no device of the class is enrolled for benching.
    """
    made = [
        _candidate(objects, number, name, path, now)
        for number, (name, path) in enumerate([(ORIGINAL, original), *candidates.items()])
    ]
    models = {candidate.manifest.model for candidate in made}
    if len(models) != 1:
        raise UsageError("invalid", f"one round measures candidates of one model, not of {', '.join(sorted(models))}")
    with write(engine) as session:
        return create_round(
            session,
            hardware_class=settings.hardware_class,
            candidates=made,
            timeout_s=settings.timeout_s,
            wait_s=settings.wait_s,
            actor=actor,
            now=now,
        ).id


def _candidate(objects: Objects, number: int, name: str, path: Path, now: datetime) -> NewCandidate:
    if not 0 < len(name) <= _MAX_NAME or (number and name == ORIGINAL):
        raise UsageError("invalid", f"a candidate's name has 1 to {_MAX_NAME} letters and is not {ORIGINAL!r}")
    with open_bundle(path) as bundle, tempfile.TemporaryDirectory(prefix="wavegate-bench-") as scratch:
        manifest = _manifest(objects, bundle, Path(scratch), FIRST_NUMBER + number, now)
    candidate = NewCandidate(name, manifest, "")
    return NewCandidate(name, manifest, hashlib.sha256(candidate.data).hexdigest())


def _manifest(objects: Objects, bundle: Bundle, scratch: Path, number: int, now: datetime) -> Manifest:
    from wavegate_server.adapters.files import onnx_files  # onnx costs 60 MB and a second: only where a file is read

    spec = bundle.spec
    ready = scratch / spec.model_file
    ready.parent.mkdir(parents=True, exist_ok=True)
    facts = onnx_files.prepare(bundle.model_path, ready, stored=spec.stored)
    samples, _ = count_samples(bundle.path(spec.golden.file))
    roles = artifact_roles(spec)
    paths = {name: ready if name == spec.model_file else bundle.path(name) for name in roles}
    manifest = build_manifest(
        spec,
        version=number,
        created=now.isoformat(),
        artifacts=[store_artifact(objects, name, roles[name], path) for name, path in paths.items()],
        samples=samples,
        facts={"opset": facts.opset, "domains": facts.domains},
        parent=None,
    )
    return msgspec.structs.replace(manifest, bench_only=True)
