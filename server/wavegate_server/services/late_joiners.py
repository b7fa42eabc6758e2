"""Late joiners: a look, four times a minute, at devices that wait for a fleet default; they get it in a small rollout.

Nothing is kept in memory but when to look next: what a device was given is in
its rollouts. Not here: which devices wait (`adapters/store/fleet_defaults`), how the rollout proceeds (`services/engine`).
"""

import logging
from datetime import datetime, timedelta

from sqlalchemy import Engine
from sqlmodel import Session

from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.database.tables import FleetDefault
from wavegate_server.adapters.store.fleet_defaults import (
    defaults_in_effect,
    give_default,
    waiting_devices,
)
from wavegate_server.core.rollout.late_joiners import parse_choice

__all__ = ["LateJoiners"]

_LOG = logging.getLogger(__name__)
_EVERY = timedelta(seconds=15)


class LateJoiners:
    """Gives fleet defaults to devices that wait for one; `tick` looks when it is time."""

    def __init__(self, database: Engine) -> None:
        self._database = database
        self._due: datetime | None = None

    def tick(self, now: datetime) -> int:
        """One look, where it is time for one; how many rollouts it began."""
        if self._due is not None and self._due - _EVERY <= now < self._due:
            return 0
        self._due = now + _EVERY
        with read(self._database) as session:
            models = defaults_in_effect(session)
            waiting = [model for model, found in models.items() if any(_waiting(session, found, now))]
        return sum(self._begin(model, now) for model in waiting)

    def _begin(self, model: str, now: datetime) -> int:
        begun = 0
        with write(self._database) as session:
            found = defaults_in_effect(session).get(model, [])
            for default, devices in zip(found, _waiting(session, found, now), strict=True):
                if devices:
                    rollout = give_default(session, default, devices, now)
                    _LOG.info(
                        "fleet.default_given rollout=%s model=%s version=%s devices=%s",
                        rollout,
                        model,
                        default.version,
                        len(devices),
                    )
                    begun += 1
        return begun


def _waiting(session: Session, found: list[FleetDefault], now: datetime) -> list[list[str]]:
    """Of each default of a model, newest first, the devices that wait for it."""
    choices = [parse_choice(default.choice) for default in found]
    return [waiting_devices(session, default, choices[:at], now) for at, default in enumerate(found)]
