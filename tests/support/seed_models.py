"""The seeded fleet's two models: address-match with five versions, kiln-inversion with one that is only imported."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlmodel import Session

from wavegate_server.adapters.database.tables import Model, Version, VersionArtifact
from wavegate_shared.chunks import Chunk
from wavegate_shared.manifest import Artifact, Comparison, Golden, Manifest, Requires, Slo, TensorSpec, encode_manifest
from wavegate_shared.metrics import Direction, Metric

__all__ = ["MODEL", "SIZES", "seed_models"]

MODEL = "address-match"
SIZES = {1: 11_900_000, 2: 3_420_000, 3: 3_100_000, 4: 3_390_000, 5: 3_405_000}
_ACCURACY = {1: 0.982, 2: 0.979, 4: 0.93, 5: 0.981}


@dataclass(frozen=True)
class _Where:
    session: Session
    now: datetime


def seed_models(session: Session, now: datetime) -> None:
    """Write both models and all their versions."""
    seed = _Where(session, now)
    seed.session.add(
        Model(
            name=MODEL,
            task="text-pair-classification",
            description="Do two delivery addresses mean the same place? A two-layer cross-encoder.",
            created_at=_ago(seed, days=9),
            champion=2,
            challenger=5,
        )
    )
    for number, days in ((1, 9), (2, 4), (3, 2), (4, 1), (5, 0.1)):
        _version(seed, number, days)
    seed.session.add(
        Model(
            name="kiln-inversion",
            task="regression",
            description="Wall thickness from the surface temperature of a kiln.",
            created_at=_ago(seed, hours=5),
        )
    )
    manifest = _manifest("kiln-inversion", 1, Metric("mean_absolute_error", "mm", Direction.DOWN), 2_140_000, [])
    _add_version(seed, manifest, state="imported", at=_ago(seed, hours=5), value=1.84)


def _version(seed: _Where, number: int, days: float) -> None:
    table = [
        Comparison(name="size", unit="MB", before=11.9, after=SIZES[number] / 1e6),
        Comparison(name="latency p50", unit="ms", before=11.6, after={2: 5.7, 3: 5.2, 4: 8.1, 5: 5.2}.get(number, 0.0)),
        Comparison(name="peak memory", unit="MB", before=96.0, after={2: 61.0, 3: 134.4, 4: 61.0, 5: 97.2}.get(number)),
        Comparison(name="CPU time per inference", unit="ms", before=11.4, after=5.6 if number != 4 else 8.0),
        Comparison(name="accuracy", unit="share", before=0.9836, after=_ACCURACY.get(number, 0.71)),
    ]
    manifest = _manifest(MODEL, number, Metric("accuracy"), SIZES[number], [] if number == 1 else table)
    value = {1: 0.9836, 2: 0.9803, 3: 0.9790, 4: 0.9801, 5: 0.9826}[number]
    at = _ago(seed, days=days)
    _add_version(seed, manifest, state="published", at=at, value=value, denied=number in (3, 4))


def _manifest(model: str, number: int, metric: Metric, size: int, table: list[Comparison]) -> Manifest:
    chunk = Chunk(f"{number:064x}", 100_000)
    whole, rest = divmod(size - 100_000, 100_000)
    chunks = [chunk] * whole + ([Chunk("e" * 64, rest)] if rest else [])
    return Manifest(
        schema=1,
        model=model,
        version=number,
        created="2026-01-05T08:00:00Z",
        task="text-pair-classification",
        family="transformer",
        licence="Apache-2.0",
        artifacts=[
            Artifact(
                name="model.onnx", role="model", sha256=f"{number:064x}", size_bytes=size - 100_000, chunks=chunks
            ),
            Artifact(name="golden.npz", role="golden", sha256="f" * 64, size_bytes=100_000, chunks=[chunk]),
        ],
        inputs=[TensorSpec("text", "BYTES", [-1, 2])],
        outputs=[TensorSpec("logits", "FP32", [-1, 2])],
        metric=metric,
        golden=Golden(artifact="golden.npz", limit=0.965 if metric.unit == "share" else 2.5, samples=240),
        requires=Requires(memory_mb=160, opset=17),
        slo=Slo(p95_ms=120),
        recipe={1: "original", 2: "int8-dynamic", 3: "int8-static"}.get(number, "int8-dynamic + repair"),
        parent=None if number == 1 else 1,
        comparison=table,
    )


def _add_version(
    seed: _Where, manifest: Manifest, *, state: str, at: datetime, value: float, denied: bool = False
) -> None:
    version = Version(
        model=manifest.model,
        number=manifest.version,
        state=state,
        created_at=at,
        published_at=at if state == "published" else None,
        manifest=encode_manifest(manifest),
        manifest_sha256=f"{manifest.version * 7919:064x}"[::-1],
        size_bytes=manifest.size_bytes,
        recipe=manifest.recipe,
        parent=manifest.parent,
        denied=denied,
        metric_value=value,
        info={
            "parameters": 2_972_000,
            "flops": 84_300_000,
            "bundle_sha256": "b" * 64,
            "files": {"model.onnx": "c" * 64},
        },
    )
    seed.session.add(version)
    seed.session.flush()
    for artifact in manifest.artifacts:
        seed.session.add(
            VersionArtifact(
                version_id=version.id or 0,
                name=artifact.name,
                role=artifact.role,
                sha256=artifact.sha256,
                size_bytes=artifact.size_bytes,
            )
        )


def _ago(seed: _Where, **span: float) -> datetime:
    return seed.now - timedelta(**span)
