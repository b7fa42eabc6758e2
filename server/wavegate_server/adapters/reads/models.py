"""Reading models and their versions, with the before/after table each version was signed with.

What a manifest says is read from the manifest's bytes, so that a page shows what devices verify.
"""

from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import func, select
from sqlmodel import Session

from wavegate_server.adapters.reads.fleet import version_shares
from wavegate_server.adapters.reads.page import MAX_LIMIT, Page, columns, cursor_text, cursor_value, rows
from wavegate_server.core.sentences import Sentence
from wavegate_shared.errors import UsageError
from wavegate_shared.manifest import Artifact, Comparison, Manifest, Requires, Slo, decode_manifest
from wavegate_shared.metrics import Metric

__all__ = ["ModelDetail", "ModelRow", "VersionRow", "model_detail", "model_metrics", "model_rows", "version_rows"]


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One version: what the registry knows and what its manifest says."""

    model: str
    number: int
    state: str
    denied: bool
    recipe: str
    parent: int | None
    created_at: datetime
    published_at: datetime | None
    size_bytes: int
    manifest_sha256: str
    metric: Metric
    metric_value: float | None
    golden_limit: float
    golden_samples: int
    comparison: tuple[Comparison, ...]
    artifacts: tuple[Artifact, ...]
    requires: Requires
    slo: Slo
    licence: str
    devices: int
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One line of the model list; figures are of the newest version."""

    name: str
    task: str
    description: str
    created_at: datetime
    champion: int | None
    challenger: int | None
    revision: int
    versions: int
    newest: VersionRow | None
    devices: int


@dataclass(frozen=True, slots=True)
class ModelDetail:
    """A model with its versions, newest first."""

    row: ModelRow
    versions: tuple[VersionRow, ...]


def model_rows(session: Session, *, cursor: str | None = None, limit: int = 50) -> Page[ModelRow]:
    """Models in the order of their names.

    Raises:
        UsageError: `invalid`, for a cursor that is not ours.
    """
    model = columns("model")
    limit = max(1, min(limit, MAX_LIMIT))
    query = select(model.name.table).order_by(model.name).limit(limit + 1)
    if cursor:
        query = query.where(model.name > cursor_value(cursor))
    found = rows(session, query)
    items = tuple(_model_row(row, version_rows(session, row.name)) for row in found[:limit])
    return Page(items, cursor_text(items[-1].name) if len(found) > limit else None)


def model_detail(session: Session, name: str) -> ModelDetail:
    """One model with all its versions.

    Raises:
        UsageError: `not_found`.
    """
    model = columns("model")
    found = rows(session, select(model.name.table).where(model.name == name))
    if not found:
        raise UsageError("not_found", Sentence("missing.model", name=repr(name)))
    versions = version_rows(session, name)
    return ModelDetail(_model_row(found[0], versions), versions)


def version_rows(session: Session, model: str) -> tuple[VersionRow, ...]:
    """A model's versions, newest first; empty for an unknown model."""
    version = columns("version")
    running = {share.version: share.devices for share in version_shares(session) if share.model == model}
    query = select(version.id.table).where(version.model == model).order_by(version.number.desc())
    return tuple(_version_row(row, running.get(row.number, 0)) for row in rows(session, query))


def model_metrics(session: Session) -> dict[str, Metric]:
    """Each model's metric, as its newest version's manifest says."""
    version = columns("version")
    newest = select(func.max(version.id)).group_by(version.model)
    query = select(version.model, version.manifest).where(version.id.in_(newest))
    return {row.model: _manifest(row.manifest).metric for row in rows(session, query)}


@lru_cache(maxsize=256)
def _manifest(data: bytes) -> Manifest:
    """Manifests never change and every page reads some: keep the last ones decoded."""
    return decode_manifest(data)


def _model_row(row: Any, versions: tuple[VersionRow, ...]) -> ModelRow:
    return ModelRow(
        name=row.name,
        task=row.task,
        description=row.description,
        created_at=row.created_at,
        champion=row.champion,
        challenger=row.challenger,
        revision=row.revision,
        versions=len(versions),
        newest=versions[0] if versions else None,
        devices=sum(version.devices for version in versions),
    )


def _version_row(row: Any, devices: int) -> VersionRow:
    manifest = _manifest(row.manifest)
    return VersionRow(
        model=row.model,
        number=row.number,
        state=row.state,
        denied=row.denied,
        recipe=row.recipe,
        parent=row.parent,
        created_at=row.created_at,
        published_at=row.published_at,
        size_bytes=row.size_bytes,
        manifest_sha256=row.manifest_sha256,
        metric=manifest.metric,
        metric_value=row.metric_value,
        golden_limit=manifest.golden.limit,
        golden_samples=manifest.golden.samples,
        comparison=tuple(manifest.comparison),
        artifacts=tuple(manifest.artifacts),
        requires=manifest.requires,
        slo=manifest.slo,
        licence=manifest.licence,
        devices=devices,
        info=dict(row.info or {}),
    )
