"""The door to all reads, over one seeded fleet: device, models, rollouts."""

import pytest
from sqlmodel import Session

from tests.server.adapters.conftest import SEEDED_AT as NOW
from tests.support.seed import device_ids
from wavegate_server.adapters.reads.device import device_detail, device_events, device_why
from wavegate_server.adapters.reads.fleet import DeviceFilter, Health, device_rows, fleet_summary
from wavegate_server.adapters.reads.models import model_detail
from wavegate_server.adapters.reads.page import revision
from wavegate_server.adapters.reads.rollouts import rollout_detail, rollout_rows
from wavegate_shared.errors import UsageError


def test_the_revision(session: Session) -> None:
    assert revision(session) == 7


def test_summary_and_rows_agree(session: Session) -> None:
    summary = fleet_summary(session, NOW)
    rows = device_rows(session, NOW, DeviceFilter(), limit=200).items
    assert [row.id for row in rows] == device_ids()
    for health in Health:
        assert sum(row.health is health for row in rows) == summary.health[health]
    assert {(share.version, share.devices) for share in summary.versions} == {(2, 14), (5, 9)}


def test_a_page_of_events_ends_where_the_next_begins(session: Session) -> None:
    first = device_events(session, "locker-hz-01", limit=10)
    second = device_events(session, "locker-hz-01", limit=10, cursor=first.next_cursor)
    ids = [event.id for event in (*first.items, *second.items)]
    assert ids == sorted(ids, reverse=True)
    assert len(set(ids)) == 20


@pytest.mark.parametrize("cursor", ["%%", "bm8"])
def test_a_foreign_cursor_is_refused(session: Session, cursor: str) -> None:
    for call in (
        lambda: device_events(session, "locker-hz-01", cursor=cursor),
        lambda: rollout_rows(session, cursor=cursor),
    ):
        with pytest.raises(UsageError, match="invalid"):
            call()


def test_what_does_not_exist(session: Session) -> None:
    for call in (
        lambda: device_detail(session, NOW, "nope"),
        lambda: device_why(session, "nope"),
        lambda: model_detail(session, "nope"),
        lambda: rollout_detail(session, "nope"),
    ):
        with pytest.raises(UsageError, match="not_found"):
            call()
