from pathlib import Path

from sqlmodel import select

from tests.support.fleet_db import FleetDb, fleet_db, manifest
from wavegate_server.adapters.database.connection import write
from wavegate_server.adapters.database.tables import Version, VersionArtifact
from wavegate_server.adapters.store.artifacts import ArtifactIndex

SHA256 = f"{1:064x}"


def known(db: FleetDb, state: str = "published") -> None:
    db.version(1, state=state)
    with write(db.engine) as session:
        version = session.exec(select(Version)).one()
        for artifact in manifest(1).artifacts:
            session.add(
                VersionArtifact(
                    version_id=version.id or 0,
                    name=artifact.name,
                    role=artifact.role,
                    sha256=artifact.sha256,
                    size_bytes=artifact.size_bytes,
                )
            )


def test_a_published_artifact_is_found_with_its_chunks(tmp_path: Path) -> None:
    with fleet_db(tmp_path) as db:
        known(db)
        table = ArtifactIndex(db.engine).find(SHA256)

    assert table is not None
    assert (len(table.chunks), table.starts) == (1, (0,))


def test_an_artifact_that_is_only_imported_is_not(tmp_path: Path) -> None:
    with fleet_db(tmp_path) as db:
        known(db, state="imported")
        assert ArtifactIndex(db.engine).find(SHA256) is None


def test_a_digest_nobody_knows_is_not(tmp_path: Path) -> None:
    with fleet_db(tmp_path) as db:
        known(db)
        assert ArtifactIndex(db.engine).find("../../etc/passwd") is None


def test_a_revoked_version_is_forgotten_soon(tmp_path: Path) -> None:
    clock = [0.0]
    with fleet_db(tmp_path) as db:
        known(db)
        index = ArtifactIndex(db.engine, monotonic=lambda: clock[0])
        index.find(SHA256)
        with write(db.engine) as session:
            session.exec(select(Version)).one().state = "revoked"
        at_once = index.find(SHA256)
        clock[0] = 31.0

        assert at_once is not None
        assert index.find(SHA256) is None
