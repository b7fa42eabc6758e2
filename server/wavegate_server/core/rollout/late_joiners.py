"""Devices that come after a rollout: which of them a default means, and how they get its version.

How to think of this: a completed rollout leaves a fleet default behind, "devices that fit this get that version". A device that
enrols, returns from repair or changes its class or labels then gets it in a small rollout of its own kind: a few devices at a
time, with golden set, bench and probation, but without a soak, because the fleet has judged the version already. So one device
that cannot run it ends as failed and says nothing about the version; when half of them fail, it stops.

Not here: who waits for a default (`adapters/store/fleet_defaults`), when one looks (`services/late_joiners`).
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from wavegate_shared.errors import UsageError

__all__ = ["APPROVED_BY", "WAVE", "Choice", "late_policy", "parse_choice"]

WAVE = "late joiners"
APPROVED_BY = "fleet default"
_AT_A_TIME = 5
_HALF = 0.5


class Choice(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Which devices, also those to come: every given field must match; with none given, all devices."""

    hardware_class: str = msgspec.field(default="", name="class")
    site: str = ""
    labels: dict[str, str] = {}

    def fits(self, hardware_class: str, site: str, labels: Mapping[str, str]) -> bool:
        """Whether a device of this class, site and labels is meant."""
        return (
            self.hardware_class in ("", hardware_class)
            and self.site in ("", site)
            and all(labels.get(key) == value for key, value in self.labels.items())
        )

    def __str__(self) -> str:
        """As the command line takes it: `all`, or `class=edge-a,site=berlin,label.ring=early`."""
        plain = (("class", self.hardware_class), ("site", self.site))
        items = [f"{key}={value}" for key, value in plain if value]
        items += [f"label.{key}={value}" for key, value in sorted(self.labels.items())]
        return ",".join(items) or "all"


def parse_choice(values: Mapping[str, Any]) -> Choice:
    """A choice from JSON values. Raises UsageError `invalid` for anything that is no lasting trait of a device."""
    try:
        return msgspec.convert(dict(values), Choice)
    except msgspec.ValidationError as error:
        raise UsageError(
            "invalid", f"a fleet default is for all devices, a class, a site or labels: {error}"
        ) from error


def late_policy(source: Mapping[str, Any]) -> dict[str, Any]:
    """The policy of late joiners: the one of the rollout that left the default, without waves and soak, a few at a time."""
    return {
        **source,
        "waves": [{"name": WAVE, "percent": 100.0}],
        "soak_s": 0.0,
        "max_in_flight": _AT_A_TIME,
        "max_install_failures": 1,
        "max_failure_share": _HALF,
        "require_approval": False,
        "start_at": None,
        "seed": "",
        "late_joiners": "ignore",
    }
