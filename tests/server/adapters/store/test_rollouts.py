from pathlib import Path

import pytest
from sqlmodel import delete

from tests.support.fleet_db import MODEL, FleetDb, fleet_db
from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.database.tables import AuditEvent, Device, Rollout, Version
from wavegate_server.adapters.database.tables_telemetry import DeviceRollup
from wavegate_server.adapters.store.rollout_view import load_view, marks
from wavegate_server.adapters.store.rollouts import MAX_MODELS, create_rollout
from wavegate_shared.errors import UsageError
from wavegate_shared.states import AssignmentState, RolloutState

NAMES = [f"locker-{number:02}" for number in range(8)]


def test_a_rollout_is_planned_with_frozen_waves(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=8) as db:
        rollout = db.rollout(2, NAMES, waves=[{"name": "canary", "count": 1}, {"percent": 50}])
        with read(db.engine) as session:
            view = load_view(session, rollout, since=db.now)

    assert view.state is RolloutState.SCHEDULED
    assert [(wave.name, wave.size) for wave in view.waves] == [("canary", 1), ("wave 2", 3), ("wave 3", 4)]
    assert {device.previous_version for device in view.devices} == {1}
    assert [len(view.members(wave.number)) for wave in view.waves] == [1, 3, 4]


@pytest.mark.parametrize(("model", "hours", "canary"), [(MODEL, 20, True), (MODEL, 60, False), ("other", 20, False)])
def test_the_canary_is_a_device_that_applications_ask(tmp_path: Path, model: str, hours: int, canary: bool) -> None:
    """Two canaries, one of each class."""
    with fleet_db(tmp_path, devices=8) as db:
        found = set()
        for number in range(5):
            asked = NAMES[number]
            day = int(db.now.timestamp() - 3600 * hours) // 86400 * 86400
            with write(db.engine) as session:
                session.exec(delete(DeviceRollup))
                session.add(day_of_traffic(asked, model, day))
            rollout = db.rollout(2, NAMES, waves=[{"name": "canary", "count": 2}], seed="always-the-same")
            with read(db.engine) as session:
                canaries = load_view(session, rollout, since=db.now).members(0)
                found.add(asked in {device.device for device in canaries})
            with write(db.engine) as session:
                session.get_one(Rollout, rollout).state = "completed"

    assert (found == {True}) is canary


def day_of_traffic(device: str, model: str, day: int) -> DeviceRollup:
    return DeviceRollup(
        device_id=device,
        level=86400,
        bucket=day,
        slot=model,
        version=1,
        model=model,
        requests=7,
        errors=0,
        latency=b"",
        score_sum=0.0,
        score_count=0,
    )


def test_a_device_that_runs_the_version_already_is_skipped(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=2) as db:
        db.device("ready", version=2)
        rollout = db.rollout(2, ["ready", "locker-00", "locker-01"])

        assert db.row(rollout, "ready").state == AssignmentState.SKIPPED
        assert db.row(rollout, "locker-00").state == AssignmentState.SCHEDULED


def test_the_audit_log_says_who_planned_what(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        rollout = db.rollout(2, ["locker-00"])
        with read(db.engine) as session:
            event = session.get_one(AuditEvent, 1)

    assert (event.actor, event.action, event.subject) == ("ana", "rollout.create", f"rollout/{rollout}")
    assert event.detail["version"] == 2


def test_a_device_is_in_one_unfinished_rollout_at_a_time(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=2) as db:
        db.version(3)
        first = db.rollout(2, NAMES[:2])

        with pytest.raises(UsageError, match=f"device locker-00 is in rollout {first}") as refused:
            db.rollout(3, ["locker-00"])
        with write(db.engine) as session:
            session.get_one(Rollout, first).state = "completed"
        second = db.rollout(3, ["locker-00"])

    assert refused.value.code == "conflict"
    assert second != first


def unpublish(db: FleetDb, **changes: object) -> None:
    with write(db.engine) as session:
        version = session.get_one(Version, 2)
        for name, value in changes.items():
            setattr(version, name, value)


@pytest.mark.parametrize(
    ("changes", "words"), [({"state": "imported"}, "only a published"), ({"denied": True}, "was rolled back before")]
)
def test_a_version_must_be_published_and_not_denied(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        unpublish(db, **changes)
        with pytest.raises(UsageError, match=words) as refused:
            db.rollout(2, ["locker-00"])
    assert refused.value.code == "conflict"


def test_a_denied_version_may_be_forced(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        unpublish(db, denied=True)
        with write(db.engine) as session:
            assert create_rollout(
                session,
                model="address-match",
                version=2,
                devices=["locker-00"],
                policy={},
                actor="ana",
                now=db.now,
                allow_denied=True,
            )


@pytest.mark.parametrize(
    ("version", "devices", "code"),
    [(9, ["locker-00"], "not_found"), (2, ["nobody"], "not_found"), (2, [], "invalid"), (1, ["locker-00"], "conflict")],
)
def test_nonsense_is_refused(tmp_path: Path, version: int, devices: list[str], code: str) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        with pytest.raises(UsageError) as refused:
            db.rollout(version, devices)
        with read(db.engine) as session:
            assert marks(session, db.now) == []
    assert refused.value.code == code


def test_a_revoked_device_is_refused_by_name(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        with write(db.engine) as session:
            session.get_one(Device, "locker-00").state = "revoked"
        with pytest.raises(UsageError, match="locker-00 is revoked"):
            db.rollout(2, ["locker-00"])


def test_a_metric_without_a_margin_is_refused_at_once(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        db.version(3, metric="mean_absolute_error", unit="mm")
        with pytest.raises(UsageError, match="'mean_absolute_error', in mm"):
            db.rollout(3, ["locker-00"])
        assert db.rollout(3, ["locker-00"], margins={"mean_absolute_error": 0.2})


def test_with_approval_it_waits_as_a_draft(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        rollout = db.rollout(2, ["locker-00"], require_approval=True)

        assert db.state(rollout) == "draft"
        with read(db.engine) as session:
            assert marks(session, db.now) == []


def test_a_rollout_of_another_model_leaves_what_a_device_serves_alone(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        db.runs("locker-00", 1, model="parcel-size")
        rollout = db.rollout(2, ["locker-00"])
        with read(db.engine) as session:
            view = load_view(session, rollout, since=db.now)
    assert view.devices[0].previous_version == 1
    assert view.devices[0].runs == 1


def test_two_models_are_rolled_out_to_one_device_at_a_time_but_not_one_model_twice(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=1) as db:
        first = db.rollout(2, ["locker-00"])
        with write(db.engine) as session:
            session.get_one(Rollout, first).model = "parcel-size"
        db.rollout(2, ["locker-00"])
        with pytest.raises(UsageError) as refused:
            db.rollout(2, ["locker-00"])
    assert refused.value.code == "conflict"


def test_a_device_that_is_full_is_refused_by_name(tmp_path: Path) -> None:
    with fleet_db(tmp_path, devices=2) as db:
        for number in range(MAX_MODELS):
            db.runs("locker-01", 1, model=f"other-{number}")
        with pytest.raises(
            UsageError, match=r"serves 8 models at most; no room for address-match on locker-01"
        ) as refused:
            db.rollout(2, ["locker-00", "locker-01"])
    assert refused.value.code == "conflict"


def test_a_device_that_serves_nothing_takes_any_model(tmp_path: Path) -> None:
    with fleet_db(tmp_path) as db:
        db.version(2)
        db.device("new", version=0)

        assert db.state(db.rollout(2, ["new"])) == "scheduled"


def test_an_older_version_is_refused_before_anything_starts_unless_it_is_asked_for(tmp_path: Path) -> None:
    """Each device would refuse it (`version_older`), and the rollout would fail on all of them."""
    with fleet_db(tmp_path, devices=6) as db:
        for name in NAMES[:4]:
            db.runs(name, 2)
        with pytest.raises(
            UsageError, match="locker-00, locker-01, locker-02 and 1 more run a newer version"
        ) as refused:
            db.rollout(1, NAMES[:6])
        assert refused.value.code == "conflict"
        rollout = db.rollout(1, NAMES[:6], downgrade="v2 loses pairs in Lyon")
        with read(db.engine) as session:
            view = load_view(session, rollout, since=db.now)
        assert view.policy.downgrade == "v2 loses pairs in Lyon"
        assert {d.device: d.state for d in view.devices}["locker-05"] is AssignmentState.SKIPPED  # runs it already
