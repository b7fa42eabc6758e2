"""Every read model in one place: what pages, API and command line show, as frozen dataclasses.

Each function takes an open session of `database.read`, so that one page sees one snapshot. Nothing here writes. The code is
in `reads_fleet`, `reads_device`, `reads_series`, `reads_models` and `reads_rollouts`.
"""

from sqlalchemy import select
from sqlmodel import Session

from wavegate_server.adapters.reads_device import (
    DeviceDetail,
    DeviceWhy,
    EventRow,
    HistoryRow,
    SlotRow,
    WhyStep,
    device_detail,
    device_events,
    device_history,
    device_why,
)
from wavegate_server.adapters.reads_fleet import (
    OFFLINE_AFTER_S,
    RECENT_MIN,
    DeviceFilter,
    DeviceRow,
    FleetSummary,
    Health,
    Recent,
    VersionShare,
    device_ids,
    device_row,
    device_rows,
    fleet_summary,
    version_shares,
)
from wavegate_server.adapters.reads_models import (
    ModelDetail,
    ModelRow,
    VersionRow,
    model_detail,
    model_metrics,
    model_rows,
    version_rows,
)
from wavegate_server.adapters.reads_page import Page, columns, scalar
from wavegate_server.adapters.reads_rollouts import (
    GateRow,
    RolloutDetail,
    RolloutDeviceRow,
    RolloutRow,
    WaveRow,
    rollout_detail,
    rollout_rows,
)
from wavegate_server.adapters.reads_series import MAX_POINTS, RANGES, DeviceSeries, Swap, device_series

__all__ = [
    "MAX_POINTS",
    "OFFLINE_AFTER_S",
    "RANGES",
    "RECENT_MIN",
    "DeviceDetail",
    "DeviceFilter",
    "DeviceRow",
    "DeviceSeries",
    "DeviceWhy",
    "EventRow",
    "FleetSummary",
    "GateRow",
    "Health",
    "HistoryRow",
    "ModelDetail",
    "ModelRow",
    "Page",
    "Recent",
    "RolloutDetail",
    "RolloutDeviceRow",
    "RolloutRow",
    "SlotRow",
    "Swap",
    "VersionRow",
    "VersionShare",
    "WaveRow",
    "WhyStep",
    "device_detail",
    "device_events",
    "device_history",
    "device_ids",
    "device_row",
    "device_rows",
    "device_series",
    "device_why",
    "fleet_summary",
    "model_detail",
    "model_metrics",
    "model_rows",
    "revision",
    "rollout_detail",
    "rollout_rows",
    "version_rows",
    "version_shares",
]


def revision(session: Session) -> int:
    """The number that rises with every visible change; 0 before the first."""
    row = columns("revision")
    return int(scalar(session, select(row.value).where(row.id == 1)) or 0)
