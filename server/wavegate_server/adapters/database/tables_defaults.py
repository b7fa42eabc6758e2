"""Tables of fleet defaults: what devices get that come after a rollout."""

from datetime import datetime
from typing import Any

from sqlmodel import Field, SQLModel

from wavegate_server.adapters.database.columns import json_column, time_column

__all__ = ["FleetDefault"]


class FleetDefault(SQLModel, table=True):
    """A version of a model for the devices that fit. The newest one that fits a device counts; none is ever changed, only cleared."""

    __tablename__ = "fleet_default"
    id: int | None = Field(default=None, primary_key=True)
    model: str = Field(index=True)
    choice: dict[str, Any] = json_column()  # a `core.rollout.late_joiners.Choice`; {} is all devices
    version: int
    rollout_id: str | None = None  # that left it behind; None: a person set it
    policy: dict[str, Any] = json_column()  # of that rollout
    set_by: str
    set_at: datetime = time_column()
    cleared_at: datetime | None = time_column(nullable=True)
