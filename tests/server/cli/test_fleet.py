"""`wavegate fleet` against a real server."""

import pytest

from tests.support.api_server import Api
from tests.support.cli import Cli


@pytest.fixture
def fleet(api: Api) -> Api:
    api.add_active(kiosk_1={"ring": "early"}, kiosk_2={})
    return api


def test_a_default_is_set_listed_and_cleared(cli: Cli, fleet: Api) -> None:
    assert "No fleet defaults" in cli("fleet", "defaults", "list").out
    said = cli("fleet", "defaults", "set", "pairs", 1, "--devices", "label.ring=early,class=edge-a").out
    assert said == "Devices that fit 'class=edge-a,label.ring=early' get pairs v1 from now on.\n"
    listed = cli("fleet", "defaults", "list", "--model", "pairs").out
    assert "class=edge-a,label.ring=early" in listed
    assert "yes" in listed
    assert [one["version"] for one in cli("fleet", "defaults", "list", "--json").json["items"]] == [1]
    chosen = ("--devices", "label.ring=early,class=edge-a")  # in another order than the server says it
    assert cli("fleet", "defaults", "clear", "pairs", *chosen).out.startswith("1 cleared.")
    assert cli("fleet", "defaults", "list", "--json").json["items"] == []


def test_device_why_tells_of_the_default_that_waits(cli: Cli, fleet: Api) -> None:
    cli("fleet", "defaults", "set", "pairs", 1)
    assert "The fleet default for all is pairs v1" in cli("device", "why", "kiosk-1").out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("set", "pairs", 1, "--devices", "kiosk-1"), 1, "not for single devices"),
        (("set", "pairs", 1, "--devices", "colour=red"), 2, "is no filter"),
        (("set", "pairs", 1, "--devices", "site=nowhere"), 1, "--ahead"),
        (("set", "pairs", 0), 2, "VERSION"),
        (("clear", "pairs"), 1, "no fleet default of pairs for 'all'"),
        (("clear", "pairs", "--devices", "kiosk-1"), 2, "not for single devices"),
    ],
)
def test_what_is_wrong_is_refused(cli: Cli, fleet: Api, arguments: tuple[object, ...], code: int, says: str) -> None:
    assert says in cli("fleet", "defaults", *map(str, arguments), code=code).err
