"""What a slot keeps on disk, by state."""

import pytest

from wavegate_agent.core.machine_types import BEFORE_SWAP, AssignedVersion, Slot, Version
from wavegate_shared.states import DeviceState as S

V1, V2, V3, V4 = (Version(model="m", version=n, sha256=f"{n:064x}") for n in (1, 2, 3, 4))


@pytest.mark.parametrize("state", sorted(BEFORE_SWAP))
def test_what_is_being_installed_is_kept_beside_what_serves(state: S) -> None:
    slot = Slot(state=state, active=V1, standby=V2, assigned=AssignedVersion(seq=1, version=V3))
    assert slot.kept == (V1, V2, V3)


def test_three_versions_until_the_newest_is_proven() -> None:
    slot = Slot(state=S.PROBATION, active=V3, standby=V2, spare=V1, assigned=AssignedVersion(seq=1, version=V3))
    assert set(slot.kept) == {V1, V2, V3}


def test_the_oldest_goes_on_commit_and_the_refused_one_on_discard() -> None:
    committed = Slot(state=S.COMMITTED, active=V3, standby=V2, spare=V1, assigned=AssignedVersion(seq=1, version=V3))
    assert committed.kept == (V3, V2)
    discarding = Slot(state=S.DISCARDING, active=V1, standby=V2, assigned=AssignedVersion(seq=1, version=V3))
    assert discarding.kept == (V1, V2)


def test_what_waits_is_kept_too() -> None:
    waiting = AssignedVersion(seq=2, version=V4)
    assert V4 in Slot(state=S.DISCARDING, active=V1, assigned=AssignedVersion(seq=1, version=V3), pending=waiting).kept


@pytest.mark.parametrize(
    ("state", "busy"), [(S.IDLE, False), (S.BROKEN, False), (S.FETCHING, True), (S.FALLBACK, True)]
)
def test_busy(state: S, busy: bool) -> None:
    assert Slot(state=state).busy is busy
