"""The tables of telemetry: raw windows, roll-ups, and the watermark that tells new from repeated.

Hot: written through SQL compiled once from these classes; integers instead of datetimes on purpose, no relationship().
"""

from sqlalchemy import Column, Index, LargeBinary
from sqlmodel import Field, SQLModel

__all__ = ["DeviceRollup", "FleetRollup", "TelemetryWindow", "Watermark"]


class Watermark(SQLModel, table=True):
    """Highest (boot, seq) stored for a device; at or below it is a duplicate."""

    __tablename__ = "watermark"
    device_id: str = Field(primary_key=True)
    boot: int
    seq: int


class TelemetryWindow(SQLModel, table=True):
    """One raw window. Append-only, no unique key (the watermark dedups), two plain indexes at most."""

    __tablename__ = "telemetry_window"
    __table_args__ = (Index("ix_telemetry_window_start", "start"),)
    id: int | None = Field(default=None, primary_key=True)
    device_id: str
    slot: str
    model: str
    version: int
    start: int  # Unix seconds * 1000, UTC: integer on purpose, this is the hot path
    seconds: float
    received: int  # Unix milliseconds
    requests: int
    errors: int
    latency: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    score_sum: float
    score_count: int
    cpu_ms: float | None = None
    rss_mb: float | None = None
    anon_mb: float | None = None
    agent_rss_mb: float | None = None
    temperature_c: float | None = None


class DeviceRollup(SQLModel, table=True):
    """Device x version x bucket. `level` is the bucket's length in seconds: 60, 3600 or 86400."""

    __tablename__ = "device_rollup"
    device_id: str = Field(primary_key=True)
    level: int = Field(primary_key=True)
    bucket: int = Field(primary_key=True)  # Unix seconds of the bucket's start
    slot: str = Field(primary_key=True)
    version: int = Field(primary_key=True)
    model: str
    requests: int
    errors: int
    latency: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    score_sum: float
    score_count: int
    cpu_ms: float = 0.0
    rss_mb: float | None = None  # maximum seen
    anon_mb: float | None = None  # maximum seen


class FleetRollup(SQLModel, table=True):
    """Fleet x version x class x site x bucket."""

    __tablename__ = "fleet_rollup"
    level: int = Field(primary_key=True)
    bucket: int = Field(primary_key=True)
    model: str = Field(primary_key=True)
    version: int = Field(primary_key=True)
    hardware_class: str = Field(primary_key=True)
    site: str = Field(primary_key=True)
    requests: int
    errors: int
    latency: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    score_sum: float
    score_count: int
