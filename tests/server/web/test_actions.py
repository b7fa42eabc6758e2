"""Buttons of the rollout page: the same function as the API's, from this site only."""

from dataclasses import replace
from typing import Any

import pytest

from tests.support.web_server import Dashboard
from wavegate_server.adapters.database.connection import read
from wavegate_server.adapters.reads.rollouts import RolloutDetail, rollout_detail
from wavegate_server.adapters.store.tokens import Role
from wavegate_server.web.rollout_page import offers

ROLLOUT = "r5-address-match"


def state(dashboard: Dashboard) -> str:
    with read(dashboard.context.engine) as session:
        return rollout_detail(session, ROLLOUT).row.state


def test_pause_and_resume(dashboard: Dashboard) -> None:
    with dashboard.client(Role.OPERATOR) as client:
        answer = client.post(f"/rollouts/{ROLLOUT}/pause")
        assert (answer.status_code, answer.headers["location"]) == (303, f"/rollouts/{ROLLOUT}")
        assert state(dashboard) == "paused"
        assert "paused by a-operator" in client.get(f"/rollouts/{ROLLOUT}").text
        client.post(f"/rollouts/{ROLLOUT}/resume")
    assert state(dashboard) == "running"


@pytest.mark.parametrize(
    ("role", "origin"),
    [(Role.OPERATOR, "https://evil.example"), (Role.OPERATOR, ""), (Role.VIEWER, "https://testserver")],
)
def test_another_site_or_a_viewer_changes_nothing(dashboard: Dashboard, role: Role, origin: str) -> None:
    with dashboard.client(role) as client:
        assert client.post(f"/rollouts/{ROLLOUT}/abort", headers={"Origin": origin}).status_code == 403
    assert state(dashboard) == "running"


def test_an_action_that_does_not_fit_is_said_on_the_page(dashboard: Dashboard) -> None:
    with dashboard.client() as client:
        answer = client.post("/rollouts/r4-address-match/pause", headers={"Accept-Language": "zh"})
        assert answer.status_code == 409
        assert (
            '<p class="error" role="alert"><strong>当前状态不允许</strong> <span>发布 r4-address-match 当前为已回滚，不能暂停</span>'
            in answer.text
        )
        assert 'data-path="/rollouts/r4-address-match"' in answer.text
        assert "<h1>address-match v4</h1>" in answer.text
        assert client.post(f"/rollouts/{ROLLOUT}/dance").status_code == 404
        assert client.post("/rollouts/nope/pause").status_code == 404


def test_who_may_not_act_is_told_so_on_the_page(dashboard: Dashboard) -> None:
    with dashboard.client(Role.VIEWER) as client:
        answer = client.post(f"/rollouts/{ROLLOUT}/abort")
    assert answer.status_code == 403
    assert "a-viewer may not change rollouts from here" in answer.text
    assert "<h1>address-match v5</h1>" in answer.text


def test_offers_fit_the_state(shared: Dashboard) -> None:
    with read(shared.context.engine) as session:
        going, over = rollout_detail(session, ROLLOUT), rollout_detail(session, "r4-address-match")
    assert [(offer.name, offer.careful) for offer in offers(going)] == [
        ("pause", False),
        ("abort", True),
        ("rollback", True),
    ]
    assert offers(over) == ()


def test_a_rollback_that_would_move_nothing_is_not_offered(shared: Dashboard) -> None:
    """The first version's rollout: nothing to go back to, and its devices moved on."""
    with shared.client() as client:
        first = client.get("/rollouts/r1-address-match").text
        going = client.get(f"/rollouts/{ROLLOUT}").text
    assert 'action="/rollouts/r1-address-match/rollback"' not in first
    assert f'action="/rollouts/{ROLLOUT}/rollback"' in going


def soaking(detail: RolloutDetail, code: str, **changes: Any) -> RolloutDetail:
    """The rollout with its second wave soaking, and what the gate says of it."""
    wave = replace(detail.waves[1], state="soaking", **changes)
    gate = replace(detail.gates[0], wave=1, said={"code": code, "params": {}} if code else {})
    return replace(detail, waves=(detail.waves[0], wave, detail.waves[2]), gates=(gate, *detail.gates))


@pytest.mark.parametrize(
    ("code", "offered"),
    [
        ("gate.watching", False),
        ("gate.nobody", False),
        ("gate.needs_person", True),
        ("gate.not_proven", True),
        ("gate.missing", True),
        ("", True),
    ],
)
def test_approval_is_offered_where_the_gate_waits_for_a_person(shared: Dashboard, code: str, offered: bool) -> None:
    with read(shared.context.engine) as session:
        detail = rollout_detail(session, ROLLOUT)
    names = {offer.name: offer.note for offer in offers(soaking(detail, code))}
    assert ("approve" in names) is offered
    assert names.get("approve", "action.approve.passes") == "action.approve.passes"
    assert "approve" not in {offer.name for offer in offers(soaking(detail, code, approved_by="ana"))}
