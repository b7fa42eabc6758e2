"""What goes in and out about rollouts."""

import pytest
from pydantic import ValidationError

from wavegate_server.api.rollout_views import DeviceChoice, NewRollout
from wavegate_server.core.gate.policy import Policy


@pytest.mark.parametrize(
    ("choice", "fits"),
    [
        ({"all": True}, True),
        ({"ids": ["a"]}, True),
        ({"filter": {}}, True),
        ({}, False),
        ({"all": False}, False),
        ({"all": True, "filter": {}}, False),
        ({"ids": ["a"], "filter": {}}, False),
        ({"ids": ["a/b"]}, False),
    ],
)
def test_a_choice_is_exactly_one_of_three(choice: dict[str, object], fits: bool) -> None:
    if fits:
        DeviceChoice.model_validate(choice)
        return
    with pytest.raises(ValidationError):
        DeviceChoice.model_validate(choice)


def test_the_documented_policy_is_the_struct_that_checks_it() -> None:
    schema = NewRollout.model_json_schema()["properties"]["policy"]
    assert set(schema["properties"]) == set(Policy.__struct_fields__)
    assert schema["additionalProperties"] is False
    assert schema["properties"]["waves"]["items"]["properties"]["percent"]["anyOf"][0]["maximum"] == 100
