"""Models and versions, as their manifests say."""

from sqlmodel import Session

from tests.support.seed import MODEL
from wavegate_server.adapters.reads.models import model_detail, model_metrics, model_rows


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
