"""Which artifacts devices may fetch, with their chunks: those of published versions, and of candidates in a running bench round.

Cached by digest for half a minute.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from sqlalchemy import Engine
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from wavegate_server.adapters.database.connection import read
from wavegate_server.adapters.database.tables import BenchArtifact, BenchCandidate, BenchRound, Version, VersionArtifact
from wavegate_shared.chunks import Chunk, offsets
from wavegate_shared.manifest import decode_manifest

__all__ = ["ArtifactIndex", "ChunkTable"]

_KEPT = 256
_FRESH_S = 30.0
"""How long a revoked version's artifacts may still be answered; devices check the signed list anyway."""


@dataclass(frozen=True, slots=True)
class ChunkTable:
    """How an artifact is cut. Attributes: chunks, starts (byte offset of each)."""

    chunks: tuple[Chunk, ...]
    starts: tuple[int, ...]


class ArtifactIndex:
    """Looks artifacts up; safe between threads."""

    def __init__(self, database: Engine, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._monotonic = monotonic
        self._known: OrderedDict[str, tuple[ChunkTable, float]] = OrderedDict()
        self._lock = Lock()

    def find(self, sha256: str) -> ChunkTable | None:
        """The chunks of a published artifact; None for anything else. Unknown digests are not remembered."""
        with self._lock:
            known = self._known.get(sha256)
            if known is not None and self._monotonic() < known[1]:
                return known[0]
        table = self._load(sha256)
        with self._lock:
            self._known.pop(sha256, None)
            if table is not None:
                self._known[sha256] = (table, self._monotonic() + _FRESH_S)
                while len(self._known) > _KEPT:
                    self._known.popitem(last=False)
        return table

    def _load(self, sha256: str) -> ChunkTable | None:
        query = (
            select(col(Version.manifest))
            .join(VersionArtifact, col(VersionArtifact.version_id) == Version.id)
            .where(VersionArtifact.sha256 == sha256, Version.state == "published")
            .limit(1)
        )
        with read(self._database) as session:
            manifest = session.exec(query).first() or session.exec(_of_a_round(sha256)).first()
        if manifest is None:
            return None
        for artifact in decode_manifest(manifest).artifacts:
            if artifact.sha256 == sha256:
                return ChunkTable(tuple(artifact.chunks), tuple(offsets(artifact.chunks)))
        return None


def _of_a_round(sha256: str) -> SelectOfScalar[bytes]:
    candidate = (col(BenchCandidate.round_id) == BenchArtifact.round_id) & (
        col(BenchCandidate.number) == BenchArtifact.number
    )
    return (
        select(col(BenchCandidate.manifest))
        .join(BenchArtifact, candidate)
        .join(BenchRound, col(BenchRound.id) == BenchCandidate.round_id)
        .where(BenchArtifact.sha256 == sha256, BenchRound.state == "running")
        .limit(1)
    )
