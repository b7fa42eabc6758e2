"""Rollouts: the list, and one with waves, devices and gates."""

from sqlmodel import Session

from tests.support.seed import MODEL
from wavegate_server.adapters.reads.rollouts import rollout_detail, rollout_rows


def test_newest_first_page_by_page(session: Session) -> None:
    names: list[str] = []
    cursor = None
    while True:
        page = rollout_rows(session, limit=2, cursor=cursor)
        names += [row.id for row in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert names == [f"r{n}-{MODEL}" for n in (5, 4, 3, 2, 1)]


def test_filters(session: Session) -> None:
    assert [row.version for row in rollout_rows(session, open_only=True).items] == [5]
    assert [row.version for row in rollout_rows(session, state="rolled_back").items] == [4, 3]
    assert rollout_rows(session, model="other").items == ()


def test_counts_are_of_assignment_states(session: Session) -> None:
    row = rollout_rows(session, limit=1).items[0]
    assert row.devices == {"proven": 8, "swapped": 1, "accepted": 1, "published": 1, "scheduled": 12}
    assert (row.total, row.waves) == (23, 3)


def test_one_rollout_holds_its_waves_devices_and_gates(session: Session) -> None:
    detail = rollout_detail(session, f"r5-{MODEL}")
    assert [len(wave.devices) for wave in detail.waves] == [5, 6, 12]
    assert {device.site for device in detail.waves[0].devices} >= {"denver", "rotterdam"}
    assert [(gate.verdict, gate.final) for gate in detail.gates] == [("promote", True), ("hold", False)]
    assert detail.gates[0].evidence["decision"]["verdict"] == "promote"
    assert detail.policy["alpha"] == 0.01
