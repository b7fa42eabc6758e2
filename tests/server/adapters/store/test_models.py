"""Aliases and the mark of a revoked version."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlmodel import Session, select

from wavegate_server.adapters.database.connection import open_engine, sqlite_url, write
from wavegate_server.adapters.database.tables import METADATA, AuditEvent, Model, Version
from wavegate_server.adapters.store.models import Alias, get_model, get_version, mark_revoked, set_alias
from wavegate_shared.errors import UsageError

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    engine = open_engine(sqlite_url(tmp_path / "db"))
    METADATA.create_all(engine)
    with write(engine) as opened:
        opened.add(Model(name="m", created_at=NOW))
        for number, state in ((1, "published"), (2, "imported")):
            version = Version(model="m", number=number, state=state, manifest=b"", manifest_sha256="", size_bytes=0)
            version.created_at = NOW
            opened.add(version)
        opened.flush()
        yield opened
    engine.dispose()


@pytest.mark.parametrize("alias", Alias)
def test_an_alias_names_a_published_version_or_nothing(session: Session, alias: Alias) -> None:
    model = get_model(session, "m")
    set_alias(session, model, alias, 1, actor="ada", now=NOW)
    assert (getattr(model, alias), model.revision) == (1, 2)
    set_alias(session, model, alias, None, actor="ada", now=NOW)
    assert (getattr(model, alias), model.revision) == (None, 3)


@pytest.mark.parametrize(("number", "code"), [(2, "conflict"), (9, "not_found")])
def test_no_other_version_can_have_an_alias(session: Session, number: int, code: str) -> None:
    with pytest.raises(UsageError) as raised:
        set_alias(session, get_model(session, "m"), Alias.CHAMPION, number, actor="ada", now=NOW)
    assert raised.value.code == code


def test_a_revoked_version_loses_its_aliases_and_is_revoked_once(session: Session) -> None:
    model = get_model(session, "m")
    set_alias(session, model, Alias.CHAMPION, 1, actor="ada", now=NOW)
    for _ in range(2):
        assert mark_revoked(session, get_version(session, "m", 1), actor="ada", now=NOW, reason="x").state == "revoked"
    assert model.champion is None
    assert [row.action for row in session.exec(select(AuditEvent))] == ["model.alias", "version.revoke"]


def test_what_is_not_there_is_not_found(session: Session) -> None:
    with pytest.raises(UsageError, match="no model 'x'"):
        get_model(session, "x")
    with pytest.raises(UsageError, match="no version 9 of model 'm'"):
        get_version(session, "m", 9)
