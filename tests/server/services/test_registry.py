"""The registry on a real database, object store and image repository: what comes in is checked, numbered, signed."""

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine
from sqlmodel import Session, select

from tests.support.bundles import relist, save_model, write_pair_bundle
from tests.support.trust import NOW, make_repository
from wavegate_server.adapters.database.connection import open_engine, read, sqlite_url, write
from wavegate_server.adapters.database.tables import METADATA, AuditEvent, Model, Version, VersionArtifact
from wavegate_server.adapters.files.bundle_store import restore
from wavegate_server.adapters.files.bundles import open_bundle
from wavegate_server.adapters.files.objects import Objects
from wavegate_server.compress.search.report import Candidate, JobResult, write_result
from wavegate_server.demo.bad_versions import refused_bundle
from wavegate_server.services.registry import VersionRef, import_bundle, publish
from wavegate_shared.errors import UsageError
from wavegate_shared.manifest import Comparison, Manifest, decode_manifest


class Registry:
    """A registry in a temporary directory."""

    def __init__(self, directory: Path) -> None:
        self.engine: Engine = open_engine(sqlite_url(directory / "db"))
        METADATA.create_all(self.engine)
        self.objects = Objects(directory / "objects")
        self.tuf_repo = make_repository(directory / "trust")

    def take(self, path: Path, *, unchecked: bool = False) -> VersionRef:
        return import_bundle(self.engine, self.objects, path, unchecked=unchecked, actor="test", now=NOW)

    def version(self, number: int) -> Version:
        with read(self.engine) as session:
            return session.exec(select(Version).where(Version.number == number)).one()

    def manifest(self, number: int) -> Manifest:
        return decode_manifest(self.version(number).manifest)

    def count(self, table: type[Version | Model | VersionArtifact | AuditEvent]) -> int:
        with read(self.engine) as session:
            return len(session.exec(select(table)).all())


SMALLER = Comparison(name="size", unit="MB", before=2.0, after=1.0)


def result_of(model: Path) -> JobResult:
    """What a compression job would hand over, with this file as the chosen candidate."""
    chosen = Candidate("int8", model, None, 1.0, 1.0, [], [], offered=True, reason="")
    return JobResult([chosen], chosen, chosen, [SMALLER], 64, [], "", 1.0, 0)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


def test_a_bundle_becomes_version_one_with_its_artifacts_stored(registry: Registry, tmp_path: Path) -> None:
    assert registry.take(write_pair_bundle(tmp_path / "b")) == VersionRef("pairs", 1)
    manifest = registry.manifest(1)
    assert {artifact.role for artifact in manifest.artifacts} == {"model", "golden", "vocab"}
    assert all(registry.objects.size(a.sha256) == a.size_bytes for a in manifest.artifacts)
    assert manifest.golden.samples == 64
    assert manifest.requires.opset == 17
    assert registry.version(1).metric_value == 1.0
    assert registry.version(1).state == "imported"


def test_weights_stored_as_half_floats_are_expanded(registry: Registry, tmp_path: Path) -> None:
    bundle = write_pair_bundle(tmp_path / "b", stored="float16")
    registry.take(bundle)
    assert registry.version(1).size_bytes > (bundle / "model.onnx").stat().st_size * 1.8


def test_the_same_bundle_again_is_the_same_version(registry: Registry, tmp_path: Path) -> None:
    registry.take(write_pair_bundle(tmp_path / "b"))
    assert registry.take(tmp_path / "b") == VersionRef("pairs", 1, created=False)
    assert registry.count(Version) == 1


def test_a_compressed_bundle_knows_its_parent_and_brings_its_table(registry: Registry, tmp_path: Path) -> None:
    registry.take(write_pair_bundle(tmp_path / "b"))
    save_model(tmp_path / "small.onnx")
    with open_bundle(tmp_path / "b") as bundle:
        write_result(bundle, result_of(tmp_path / "small.onnx"), tmp_path / "small")
    assert registry.take(tmp_path / "small").number == 2
    assert registry.version(2).parent == 1
    assert registry.manifest(2).comparison == [SMALLER]
    assert registry.manifest(2).version == 2


def test_publishing_signs_exactly_the_registered_manifest_and_is_idempotent(registry: Registry, tmp_path: Path) -> None:
    registry.take(write_pair_bundle(tmp_path / "b"))
    for _ in range(2):
        publish(registry.engine, registry.tuf_repo, "pairs", 1, actor="test", now=NOW)
    name = f"targets/pairs/{registry.version(1).manifest_sha256}.1.json"
    assert registry.tuf_repo.read(name) == registry.version(1).manifest
    assert registry.version(1).state == "published"
    with read(registry.engine) as session:
        assert [event.action for event in session.exec(select(AuditEvent))] == ["version.import", "version.publish"]


def test_publishing_what_is_not_there_is_refused(registry: Registry) -> None:
    with pytest.raises(UsageError) as caught:
        publish(registry.engine, registry.tuf_repo, "pairs", 7, actor="test", now=NOW)
    assert caught.value.code == "not_found"


def test_a_bundle_below_its_own_golden_floor_is_refused_unless_unchecked(registry: Registry, tmp_path: Path) -> None:
    good = write_pair_bundle(tmp_path / "b", stored="float32")
    with open_bundle(good) as bundle:
        refused_bundle(bundle, tmp_path / "bad")
    with pytest.raises(UsageError, match="golden set gives accuracy") as caught:
        registry.take(tmp_path / "bad")
    assert caught.value.code == "bundle_invalid"
    assert registry.count(Version) == 0
    assert registry.take(tmp_path / "bad", unchecked=True).number == 1


def spoilt(directory: Path, content: bytes) -> Path:
    """A bundle whose listed digests are right but whose model file is `content`."""
    bundle = write_pair_bundle(directory, stored="float32")
    (bundle / "model.onnx").write_bytes(content)
    relist(bundle)
    return bundle


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x09" * 50])
def test_a_model_file_that_is_no_model_is_refused_and_nothing_is_registered(
    registry: Registry, tmp_path: Path, content: bytes
) -> None:
    with pytest.raises(UsageError) as caught:
        registry.take(spoilt(tmp_path / "b", content))
    assert caught.value.code == "bundle_invalid"
    assert [registry.count(table) for table in (Version, Model, VersionArtifact, AuditEvent)] == [0, 0, 0, 0]


def test_a_truncated_model_file_is_refused(registry: Registry, tmp_path: Path) -> None:
    save_model(tmp_path / "whole.onnx")
    whole = (tmp_path / "whole.onnx").read_bytes()
    with pytest.raises(UsageError) as caught:
        registry.take(spoilt(tmp_path / "b", whole[: len(whole) // 2]))
    assert caught.value.code == "bundle_invalid"


def test_a_golden_set_of_another_length_is_refused(registry: Registry, tmp_path: Path) -> None:
    bundle = write_pair_bundle(tmp_path / "b")
    with np.load(bundle / "golden.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays["label"] = arrays["label"][:-1]
    np.savez(bundle / "golden.npz", **arrays)
    relist(bundle)
    with pytest.raises(UsageError, match="one length") as caught:
        registry.take(bundle)
    assert caught.value.code == "bundle_invalid"


def test_a_version_of_an_older_release_is_completed_by_importing_its_bundle_again(
    registry: Registry, tmp_path: Path
) -> None:
    source = write_pair_bundle(tmp_path / "b")
    registry.take(source)
    with write(registry.engine) as session:
        row = session.exec(select(Version)).one()
        row.info = {name: value for name, value in row.info.items() if name != "files"}
        session.add(row)
    assert registry.take(source) == VersionRef("pairs", 1, created=False)
    restore(registry.objects, registry.version(1).info, tmp_path / "again")
    with open_bundle(tmp_path / "again") as bundle:
        assert bundle.spec.model == "pairs"


def test_what_is_written_with_an_import_happens_with_it_or_not_at_all(registry: Registry, tmp_path: Path) -> None:
    def refuse(session: Session, ref: VersionRef) -> None:
        raise UsageError("conflict", f"not {ref.number}")

    source = write_pair_bundle(tmp_path / "b")
    with pytest.raises(UsageError, match="not 1"):
        import_bundle(registry.engine, registry.objects, source, unchecked=False, actor="t", now=NOW, registered=refuse)
    assert (registry.count(Version), registry.count(Model), registry.count(AuditEvent)) == (0, 0, 0)
