"""The registry: a bundle becomes an immutable version, and a version becomes a signed, published one."""

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Engine, func
from sqlmodel import Session, col, select

from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.database.tables import Model, Version, VersionArtifact
from wavegate_server.adapters.files import bundle_store
from wavegate_server.adapters.files.bundles import Bundle, open_bundle
from wavegate_server.adapters.files.objects import Objects, file_sha256
from wavegate_server.adapters.store import audit
from wavegate_server.adapters.trust.image_repository import ImageRepository
from wavegate_server.compress.measure.run import score_model
from wavegate_server.core.bundle_spec import artifact_roles, build_manifest
from wavegate_shared.chunks import CHUNK_BYTES, Chunk, chunk_hash, cut
from wavegate_shared.errors import UsageError
from wavegate_shared.manifest import Artifact, encode_manifest
from wavegate_shared.metrics import at_least_as_good

__all__ = ["Progress", "Registered", "VersionRef", "import_bundle", "publish", "store_artifact"]

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class VersionRef:
    """A version's name. Attributes: model, number, created (False when the same bundle was imported before)."""

    model: str
    number: int
    created: bool = True


Registered = Callable[[Session, VersionRef], None]
"""Called in the transaction that makes the version, or finds it there: what it writes happens with the import or not at all."""


@dataclass(frozen=True, slots=True)
class _Checked:
    """What the host found out about a bundle before it becomes a version."""

    artifacts: list[Artifact]
    opset: int
    domains: list[str]
    value: float | None
    samples: int
    info: dict[str, Any]


def import_bundle(
    engine: Engine,
    objects: Objects,
    path: Path,
    *,
    unchecked: bool,
    actor: str,
    now: datetime,
    progress: Progress = lambda _: None,
    parent: int | None = None,
    registered: Registered = lambda _session, _ref: None,
) -> VersionRef:
    """Make a new version of the bundle at `path`; nothing is registered unless every check passed.

    Importing the same bundle again gives the version it already is. With `unchecked` the golden set's limit is not
    enforced here (the devices still enforce it). `parent` names the version it was made from; without it the newest one
    with the model file that the bundle says it came from.

    Raises:
        UsageError: `bundle_invalid`, with what is wrong and what to do.
    """
    with open_bundle(path) as bundle, tempfile.TemporaryDirectory(prefix="wavegate-import-") as scratch:
        known = _find_same(engine, objects, bundle)
        if known is not None:
            with write(engine) as session:
                registered(session, known)
            return known
        checked = _check(bundle, Path(scratch), objects, unchecked=unchecked, progress=progress)
        progress("registering")
        with write(engine) as session:
            made = _register(session, bundle, checked, actor=actor, now=now, parent=parent)
            registered(session, made)
            return made


def publish(engine: Engine, tuf_repo: ImageRepository, model: str, number: int, *, actor: str, now: datetime) -> None:
    """Sign a version's manifest into the image repository; a second call changes nothing.

    The signature comes first and the table second: a crash in between is repaired by calling again.

    Raises:
        UsageError: `not_found`, `conflict` (revoked), `key_missing`.
    """
    with read(engine) as session:
        version = _version(session, model, number)
        if version.state == "revoked":
            raise UsageError("conflict", f"{model} {number} was revoked; import it again as a new version")
        if version.state == "published":
            return
        manifest = version.manifest
    tuf_repo.publish(model, number, manifest, now)
    with write(engine) as session:
        version = _version(session, model, number)
        version.state, version.published_at = "published", now
        session.add(version)
        audit.append(session, actor=actor, action="version.publish", subject=f"{model}/{number}", now=now)


def _version(session: Session, model: str, number: int) -> Version:
    found = session.exec(select(Version).where(Version.model == model, Version.number == number)).first()
    if found is None:
        raise UsageError("not_found", f"no version {number} of {model}; `wavegate model list` shows what there is")
    return found


def _find_same(engine: Engine, objects: Objects, bundle: Bundle) -> VersionRef | None:
    digest = _bundle_digest(bundle)
    with read(engine) as session:
        versions = session.exec(select(Version).where(Version.model == bundle.spec.model))
        same = next((version for version in versions if version.info.get("bundle_sha256") == digest), None)
    if same is None:
        return None
    if not bundle_store.is_kept(same.info):  # imported by a release that kept the artifacts only
        kept = bundle_store.keep(objects, bundle)
        with write(engine) as session:
            row = _version(session, same.model, same.number)
            row.info = {**row.info, **kept}
            session.add(row)
    return VersionRef(same.model, same.number, created=False)


def _bundle_digest(bundle: Bundle) -> str:
    return file_sha256(bundle.directory / "bundle.yaml")


def _check(bundle: Bundle, scratch: Path, objects: Objects, *, unchecked: bool, progress: Progress) -> _Checked:
    from wavegate_server.adapters.files import onnx_files  # onnx costs 60 MB and a second: only where a file is read

    spec = bundle.spec
    progress("checking the model file")
    ready = scratch / spec.model_file
    facts = onnx_files.prepare(bundle.model_path, ready, stored=spec.stored)
    progress("running the golden set")
    golden = bundle.path(spec.golden.file)
    result = score_model(ready, golden, spec, bundle.directory)
    if not unchecked and not (result.finite and at_least_as_good(spec.metric, result.value, spec.golden_limit)):
        raise UsageError(
            "bundle_invalid",
            f"the golden set gives {spec.metric.name} {result.value:.4f}, the bundle's limit is {spec.golden_limit:.4f}; "
            "mend the model or the limit (`--unchecked` registers it all the same; devices will refuse it)",
        )
    progress("storing artifacts")
    roles = artifact_roles(spec)
    paths = {name: ready if name == spec.model_file else bundle.path(name) for name in roles}
    artifacts = [store_artifact(objects, name, roles[name], path) for name, path in paths.items()]
    info = {
        **bundle_store.keep(objects, bundle),
        "parameters": facts.parameters,
        "flops": _flops(ready),
        "nodes": facts.nodes,
        "opset": facts.opset,
        "source_sha256": file_sha256(bundle.model_path),
        "host": {"load_ms": result.load_ms, "peak_rss_mb": result.peak_rss_mb},
        "comparison": msgspec.to_builtins(spec.comparison),
        "calib_sha256": objects.put_file(bundle.path(spec.calib.file)) if spec.calib else None,
        "unchecked": unchecked,
    }
    return _Checked(artifacts, facts.opset, facts.domains, result.value, len(result.scores), info)


def _flops(model: Path) -> int | None:
    from wavegate_server.compress.onnx_graph.inspect import inspect_file  # as above

    return inspect_file(model).flops


def store_artifact(objects: Objects, name: str, role: str, path: Path) -> Artifact:
    """Put a file into the store; gives it as a manifest lists it, cut into chunks."""
    sha256 = objects.put_file(path)
    chunks = [Chunk(chunk_hash(piece), len(piece)) for piece in cut(_blocks(path), CHUNK_BYTES)]
    return Artifact(name=name, role=role, sha256=sha256, size_bytes=path.stat().st_size, chunks=chunks)


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            yield block


def _register(
    session: Session, bundle: Bundle, checked: _Checked, *, actor: str, now: datetime, parent: int | None
) -> VersionRef:
    spec = bundle.spec
    if session.get(Model, spec.model) is None:
        session.add(Model(name=spec.model, task=spec.task, description=spec.description, created_at=now))
    number = (session.exec(select(func.max(Version.number)).where(Version.model == spec.model)).one() or 0) + 1
    parent = parent or _parent(session, spec.model, spec.parent.sha256 if spec.parent else None)
    manifest = build_manifest(
        spec,
        version=number,
        created=now.isoformat(),
        artifacts=checked.artifacts,
        samples=checked.samples,
        facts={"opset": checked.opset, "domains": checked.domains},
        parent=parent,
    )
    data = encode_manifest(manifest)
    version = Version(
        model=spec.model,
        number=number,
        created_at=now,
        manifest=data,
        manifest_sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=manifest.artifact("model").size_bytes,
        recipe=spec.recipe,
        parent=parent,
        metric_value=checked.value,
        info=checked.info,
    )
    session.add(version)
    session.flush()
    for artifact in checked.artifacts:
        session.add(_artifact_row(version.id or 0, artifact))
    audit.append(session, actor=actor, action="version.import", subject=f"{spec.model}/{number}", now=now)
    return VersionRef(spec.model, number)


def _artifact_row(version_id: int, artifact: Artifact) -> VersionArtifact:
    return VersionArtifact(
        version_id=version_id,
        name=artifact.name,
        role=artifact.role,
        sha256=artifact.sha256,
        size_bytes=artifact.size_bytes,
    )


def _parent(session: Session, model: str, source_sha256: str | None) -> int | None:
    if source_sha256 is None:
        return None
    for version in session.exec(select(Version).where(Version.model == model).order_by(col(Version.number).desc())):
        if version.info.get("source_sha256") == source_sha256:
            return version.number
    return None
