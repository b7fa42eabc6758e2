"""Models and versions, as their manifests say."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine
from sqlmodel import Session

from tests.support.seed import MODEL, seed_fleet
from wavegate_server.adapters.database import open_engine, read
from wavegate_server.adapters.reads_models import model_detail, model_metrics, model_rows
from wavegate_server.adapters.tables import METADATA

NOW = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    opened = open_engine(f"sqlite:///{tmp_path_factory.mktemp('reads') / 'w.db'}")
    METADATA.create_all(opened)
    seed_fleet(opened, NOW, minutes=1)
    yield opened
    opened.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with read(engine) as opened:
        yield opened


def test_models_come_by_name_with_their_newest_version(session: Session) -> None:
    page = model_rows(session, limit=1)
    assert [(row.name, row.versions, row.newest.number if row.newest else 0) for row in page.items] == [(MODEL, 5, 5)]
    rest = model_rows(session, cursor=page.next_cursor)
    assert [row.name for row in rest.items] == ["kiln-inversion"]
    assert rest.next_cursor is None


def test_versions_are_newest_first_with_table_and_devices(session: Session) -> None:
    detail = model_detail(session, MODEL)
    assert [version.number for version in detail.versions] == [5, 4, 3, 2, 1]
    assert {version.number: version.devices for version in detail.versions} == {5: 9, 4: 0, 3: 0, 2: 14, 1: 0}
    assert [version.denied for version in detail.versions] == [False, True, True, False, False]
    assert len(detail.versions[0].comparison) == 5
    assert detail.row.devices == 23


def test_each_models_metric(session: Session) -> None:
    metrics = model_metrics(session)
    assert (metrics[MODEL].name, metrics["kiln-inversion"].unit) == ("accuracy", "mm")
