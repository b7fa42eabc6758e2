"""`wavegate rollout` against a real server; a second thread plays the engine where a rollout has to move."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlmodel import select

from tests.support.api_server import Api
from tests.support.cli import Cli
from wavegate_server.adapters.database.connection import write
from wavegate_server.adapters.database.tables import AuditEvent, DeviceSlot, Rollout, RolloutDevice, Version


@pytest.fixture
def fleet(api: Api) -> Api:
    api.add_active(kiosk_1={"ring": "early"}, kiosk_2={}, kiosk_3={"site": "hamburg"})
    return api


def create(cli: Cli, *options: str) -> str:
    made: str = cli("rollout", "create", "pairs", 1, *options, "--json").json["id"]
    return made


def test_create_turns_options_into_a_policy(cli: Cli, fleet: Api) -> None:
    made = cli(
        "rollout", "create", "pairs", 1, "--devices", "site=berlin", "--waves", "canary=1,rest", "--soak", "1h",
        "--block", "15m", "--baseline", "24h", "--margin", "accuracy=0.5pt", "--margin", "p99=2%", "--few-canaries", "wide",
        "--probation", "30s", "--probation-requests", "5", "--deadline", "10m", "--max-failures", "1", "--json",
        "--idle-after", "30s", "--idle-wave", "promote", "--late-joiners", "ignore", "--watch-after", "12h",
        "--downgrade", "slow at night",
    ).json  # fmt: skip
    policy = made["policy"]
    assert [(wave["name"], wave["size"]) for wave in made["wave_list"]] == [("canary", 1), ("rest", 1)]
    assert (policy["soak_s"], policy["block_s"], policy["baseline_blocks"]) == (3600, 900, 96)
    assert (policy["margins"]["accuracy"], policy["margins"]["p99"], policy["few_canaries"]) == (0.005, 0.02, "wide")
    assert (policy["probation"]["seconds"], policy["probation"]["requests"]) == (30, 5)
    assert (policy["probation"]["idle_after"], policy["idle_wave"]) == (30, "promote")
    assert (policy["late_joiners"], policy["watch_s"], policy["downgrade"]) == ("ignore", 43200, "slow at night")
    assert (policy["deadline_s"], policy["max_install_failures"]) == (600, 1)


def test_a_policy_file_is_the_base_of_the_options(cli: Cli, fleet: Api, tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text(json.dumps({"soak_s": 7, "block_s": 60}))
    options = ("--policy", file, "--soak", "9s", "--baseline", "20m", "--idle-after", "off")
    policy = cli("rollout", "create", "pairs", 1, *options, "--json").json["policy"]
    assert (policy["soak_s"], policy["baseline_blocks"], policy["probation"]["idle_after"]) == (9, 20, None)
    file.write_text("[]")
    assert "holds no JSON object" in cli("rollout", "create", "pairs", 1, "--policy", file, code=2).err


@pytest.mark.parametrize(
    ("options", "says", "code"),
    [
        (("--waves", "canary"), "is no wave", 2),
        (("--soak", "soon"), "invalid duration 'soon'", 2),
        (("--margin", "accuracy"), "is no margin", 2),
        (("--devices", "colour=red"), "is no filter", 2),
        (("--devices", "site=nowhere"), "no active device fits", 1),
        (("--devices", "kiosk-9"), "no device 'kiosk-9'", 1),
    ],
)
def test_an_option_that_means_nothing_is_refused_with_a_word_of_help(
    cli: Cli, fleet: Api, options: tuple[str, str], says: str, code: int
) -> None:
    assert says in cli("rollout", "create", "pairs", 1, *options, code=code).err
    cli("rollout", "create", "pairs", 1, "--few-canaries", "maybe", code=2)


def test_list_show_and_why(cli: Cli, fleet: Api) -> None:
    assert "No rollouts" in cli("rollout", "list").out
    rollout = create(cli)
    assert rollout in cli("rollout", "list").out
    assert [r["id"] for r in cli("rollout", "list", "--state", "scheduled", "--json").json["items"]] == [rollout]
    shown = cli("rollout", "show", rollout).out
    assert f"{rollout}: pairs 1 is scheduled" in shown
    assert "kiosk-3" in shown
    assert cli("rollout", "show", rollout, "--json").json["id"] == rollout
    assert cli("rollout", "why", rollout).out == "pairs v1 is scheduled: waits for its start\n"
    assert cli("rollout", "why", rollout, "--json").json["rollout"] == rollout


def test_the_actions_say_what_became_of_it(cli: Cli, fleet: Api) -> None:
    rollout = create(cli, "--approve")
    assert f"{rollout} is scheduled" in cli("rollout", "approve", rollout).out
    assert f"{rollout} is paused: paused by admin: lunch" in cli("rollout", "pause", rollout, "--reason", "lunch").out
    assert cli("rollout", "pause", rollout, "--json").json["state"] == "paused"
    assert f"{rollout} is scheduled" in cli("rollout", "resume", rollout).out
    assert f"{rollout} is cancelled" in cli("rollout", "abort", rollout).out
    assert "(conflict)" in cli("rollout", "resume", rollout, code=1).err


def test_roll_back_of_a_finished_rollout(cli: Cli, fleet: Api) -> None:
    rollout = create(cli)
    _end(fleet, rollout, "completed")()
    with write(fleet.context.engine) as session:
        second = session.exec(select(Version).where(Version.model == "pairs", Version.number == 2)).one()
        second.state = "published"
        session.add(DeviceSlot(device_id="kiosk-1", model="pairs", version=1, state="idle"))
        session.get_one(RolloutDevice, (rollout, "kiosk-1")).previous_version = 2
    state = cli("rollout", "rollback", rollout, "--reason", "complaints", "--json").json["state"]
    assert state in ("rolling_back", "rolled_back")


def test_roll_back_of_a_first_version_is_refused_and_changes_nothing(cli: Cli, fleet: Api) -> None:
    rollout = create(cli)
    _end(fleet, rollout, "completed")()
    with write(fleet.context.engine) as session:
        session.add(DeviceSlot(device_id="kiosk-1", model="pairs", version=1, state="idle"))
        audited = len(session.exec(select(AuditEvent)).all())

    assert "version 1 of pairs cannot be rolled back" in cli("rollout", "rollback", rollout, code=1).err

    with write(fleet.context.engine) as session:
        version = session.exec(select(Version).where(Version.model == "pairs", Version.number == 1)).one()
        assert not version.denied
        assert len(session.exec(select(AuditEvent)).all()) == audited
        assert session.get_one(Rollout, rollout).state == "completed"


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watching command asks the server every second."""
    monkeypatch.setattr("wavegate_server.cli.rollout._POLL_S", 0.05)


@pytest.mark.usefixtures("looks_often")
@pytest.mark.parametrize(("state", "code"), [("completed", 0), ("rolled_back", 3), ("cancelled", 3)])
def test_watch_ends_with_the_rollout_and_its_exit_code_is_the_verdict(
    cli: Cli, fleet: Api, state: str, code: int
) -> None:
    rollout = create(cli)
    engine = threading.Timer(0.3, _end(fleet, rollout, state))
    engine.start()
    lines = cli("rollout", "watch", rollout, "--json", code=code).out.splitlines()
    engine.join()
    assert [json.loads(line)["state"] for line in lines] == ["scheduled", state]
    assert state in cli("rollout", "watch", rollout, code=code).out


def test_watch_gives_up_after_its_time(cli: Cli, fleet: Api) -> None:
    assert "still scheduled" in cli("rollout", "watch", create(cli), "--timeout", "1ms", code=1).err


@pytest.mark.usefixtures("looks_often")
@pytest.mark.parametrize(("end", "code"), [("rolled_back", 0), ("cancelled", 3), ("", 3)])
def test_a_rollback_that_is_watched_ends_when_no_device_has_the_version(
    cli: Cli, fleet: Api, end: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Devices that are offline keep it in `rolling_back`: the time given ends the watching, with exit code 3."""
    rollout = create(cli)
    monkeypatch.setattr("wavegate_server.cli.rollout._act", lambda *_, **__: _end(fleet, rollout, "rolling_back")())
    engine = threading.Timer(0.3, _end(fleet, rollout, end or "rolling_back"))
    engine.start()
    limit = () if end else ("--timeout", "500ms")
    out = cli("rollout", "rollback", rollout, "--watch", *limit, code=code).out
    engine.join()
    assert (end or "rolling_back") in out


@pytest.mark.usefixtures("looks_often")
def test_create_can_watch(cli: Cli, fleet: Api) -> None:
    def finish() -> None:
        while not fleet.client.get("/api/v1/rollouts").json()["items"]:
            threading.Event().wait(0.05)
        _end(fleet, fleet.client.get("/api/v1/rollouts").json()["items"][0]["id"], "rolled_back")()

    engine = threading.Thread(target=finish)
    engine.start()
    cli("rollout", "create", "pairs", 1, "--watch", code=3)
    engine.join()


def _end(api: Api, rollout: str, state: str) -> Callable[[], None]:
    def end() -> None:
        with write(api.context.engine) as session:
            row = session.get_one(Rollout, rollout)
            row.state, row.finished_at, row.revision = state, api.clock(), row.revision + 1
            session.add(row)

    return end
