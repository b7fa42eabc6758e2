"""`wavegate device` against a real server."""

import re

import pytest

from tests.support.api_server import Api
from tests.support.cli import Cli
from wavegate_shared.enrolment import parse_token

NEW = ("--class", "edge-a", "--site", "berlin")


def test_create_prints_the_token_alone_on_standard_output(cli: Cli) -> None:
    result = cli("device", "create", "kiosk-1", *NEW, "--label", "ring=early")
    assert parse_token(result.out.strip()).device == "kiosk-1"
    assert "wavegate-agent enroll" in result.err
    assert cli("device", "show", "kiosk-1", "--json").json["labels"] == {"ring": "early"}


def test_token_registers_a_new_device_and_gives_a_known_one_another(cli: Cli) -> None:
    first = cli("device", "token", "kiosk-1", *NEW)
    again = cli("device", "token", "kiosk-1", *NEW)
    assert first.out != again.out
    assert cli("device", "token", "kiosk-1", "--json").json["device"] == "kiosk-1"
    assert cli("device", "token", "kiosk-9", code=1).err.startswith("error: no device 'kiosk-9'")
    cli("device", "token", "kiosk-9", "--class", "edge-a", code=2)


def test_a_device_is_enrolled_for_benching_and_shown_so(cli: Cli) -> None:
    cli("device", "token", "kiosk-1", *NEW, "--bench")
    assert cli("device", "show", "kiosk-1", "--json").json["bench"] is True
    assert "enrolled for benching" in cli("device", "show", "kiosk-1").out
    assert " bench " in cli("device", "list").out
    cli("device", "token", "kiosk-1", "--no-bench")
    assert cli("device", "show", "kiosk-1", "--json").json["bench"] is False
    cli("device", "token", "kiosk-1", *NEW)  # says nothing about it: as it was
    assert cli("device", "show", "kiosk-1", "--json").json["bench"] is False


def test_list_filters_and_prints_a_table_or_json(cli: Cli, api: Api) -> None:
    api.add_active(kiosk_1={"ring": "early"}, kiosk_2={"site": "上海"})
    assert [d["id"] for d in cli("device", "list", "--json").json["items"]] == ["kiosk-1", "kiosk-2"]
    assert [d["id"] for d in cli("device", "list", "--label", "ring=early", "--json").json["items"]] == ["kiosk-1"]
    table = cli("device", "list", "--site", "上海").out
    assert "kiosk-2" in table
    assert "上海" in table
    assert "kiosk-1" not in table
    assert "No device fits" in cli("device", "list", "--class", "none").out
    assert "write address-match:2" in cli("device", "list", "--version", "two", code=2).err


def test_show_why_and_events_speak_plainly(cli: Cli, api: Api) -> None:
    api.enrol("kiosk-1")
    assert "kiosk-1: " in cli("device", "show", "kiosk-1").out
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, .* ago +No version was ever assigned to this device\.",
        cli("device", "why", "kiosk-1").out.strip(),
    )
    assert cli("device", "why", "kiosk-1", "--json").json["steps"][0]["code"] == "nothing"
    assert "enrolled" in cli("device", "events", "kiosk-1").out
    assert cli("device", "events", "kiosk-1", "--json").json["items"][0]["kind"] == "enrolled"


def test_label_sets_and_takes_away(cli: Cli, api: Api) -> None:
    api.add_active(kiosk_1={"ring": "early", "floor": "2"})
    assert "kiosk-1: ring=late" in cli("device", "label", "kiosk-1", "ring=late", "floor=").out
    assert cli("device", "label", "kiosk-1", "ring=", "--json").json["labels"] == {}
    assert "is no label" in cli("device", "label", "kiosk-1", "ring", code=2).err


def test_revoke_shuts_out_and_repeats_quietly(cli: Cli, api: Api) -> None:
    api.enrol("kiosk-1")
    for _ in range(2):
        assert cli("device", "revoke", "kiosk-1", "--reason", "stolen").out == "kiosk-1 is revoked.\n"
    assert cli("device", "token", "kiosk-1", "--json", code=1).err


@pytest.mark.parametrize("command", ["show", "why", "events", "revoke", "token"])
def test_an_unknown_device_is_one_line_what_and_one_line_what_to_do(cli: Cli, command: str) -> None:
    lines = cli("device", command, "kiosk-9", code=1).err.splitlines()
    assert lines[0] == "error: no device 'kiosk-9' (not_found)"
    assert len(lines) == 2


def test_an_identity_is_reissued_and_hardware_replaced(cli: Cli, api: Api) -> None:
    api.enrol("kiosk-1")
    reissued = cli("device", "reissue", "kiosk-1", "--reason", "copied")
    assert reissued.out.startswith("wg1.kiosk-1.")
    assert "shut out" in reissued.err
    assert cli("device", "replace", "kiosk-1", "kiosk-1b", "--json").json["device"] == "kiosk-1b"
    assert "(conflict)" in cli("device", "replace", "kiosk-1", "kiosk-1c", code=1).err
    assert cli("device", "show", "kiosk-1b", "--json").json["state"] == "pending"
