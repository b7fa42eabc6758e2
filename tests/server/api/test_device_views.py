"""What goes in and out about devices."""

import pytest
from pydantic import ValidationError

from wavegate_server.api.device_views import DeviceChange, FilterBody, NewDevice


def test_class_is_spelled_class_outside_and_hardware_class_inside() -> None:
    device = NewDevice.model_validate({"id": "kiosk-1", "class": "edge-a", "site": "上海 站"})
    assert (device.hardware_class, device.token, device.labels) == ("edge-a", True, {})


@pytest.mark.parametrize(
    "wrong",
    [{"site": "a,b"}, {"site": "a=b"}, {"site": " a"}, {"labels": {"A": "x"}}, {"labels": {"a": ""}}, {"more": 1}],
)
def test_what_a_filter_could_not_say_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        NewDevice.model_validate({"id": "kiosk-1", "class": "edge-a", "site": "berlin", **wrong})


def test_a_label_can_be_taken_away_by_null() -> None:
    assert DeviceChange.model_validate({"labels": {"ring": None}}).labels == {"ring": None}


def test_a_filter_means_active_devices() -> None:
    chosen = FilterBody.model_validate({"class": "edge-a", "labels": {"ring": "early"}}).rows()
    assert (chosen.hardware_class, chosen.labels, chosen.state) == ("edge-a", (("ring", "early"),), "active")
