"""several models on a device.

Revision 0006, after 0005. What a device runs and what it was assigned move into one row a model.
"""

import base64
import json
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_SLOT = sa.table(
    "device_slot",
    *(sa.column(name) for name in ("device_id", "model", "version", "sha256", "standby_version", "state")),
    *(sa.column(name) for name in ("assigned_version", "seq", "rollout_id", "wave", "removed", "entry")),
)
_OLD_LABEL = "main"


def upgrade() -> None:
    """To this revision."""
    op.create_table(
        "device_slot",
        sa.Column("device_id", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("standby_version", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("assigned_version", sa.Integer(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("rollout_id", sa.String(), nullable=True),
        sa.Column("wave", sa.Integer(), nullable=True),
        sa.Column("removed", sa.Boolean(), nullable=False),
        sa.Column("entry", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("device_id", "model"),
    )
    op.create_index("ix_device_slot_model", "device_slot", ["model", "version"])
    with op.batch_alter_table("device", schema=None) as batch_op:
        batch_op.add_column(sa.Column("slot_label", sa.String(), nullable=False, server_default=""))
    connection = op.get_bind()
    found = list(_slots(connection))
    if found:
        connection.execute(_SLOT.insert(), found)
    connection.execute(
        sa.text("UPDATE device SET slot_label = :label WHERE agent_version <> ''"), {"label": _OLD_LABEL}
    )
    for table in ("telemetry_window", "device_rollup"):
        connection.execute(sa.text(f"UPDATE {table} SET slot = model WHERE slot <> model"))  # noqa: S608 - fixed names
    with op.batch_alter_table("device", schema=None) as batch_op:
        batch_op.drop_column("running")
    with op.batch_alter_table("device_assignment", schema=None) as batch_op:
        for name in ("rollout_id", "wave", "model", "version"):
            batch_op.drop_column(name)
    with op.batch_alter_table("bench_round", schema=None) as batch_op:
        batch_op.drop_column("previous")


def downgrade() -> None:
    """Back from this revision: a device keeps the first of its models."""
    raise NotImplementedError("several models do not fit into the tables before; restore the backup")


def _slots(connection: sa.Connection) -> Iterator[dict[str, Any]]:
    """A row for each model that a device runs or was assigned."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for device_id, running in connection.execute(sa.text("SELECT id, running FROM device")):
        for slot in _decoded(running).values():
            if isinstance(slot, dict) and slot.get("model"):
                row = rows.setdefault((device_id, slot["model"]), _empty(device_id, slot["model"]))
                row.update(
                    version=slot.get("version") or 0,
                    sha256=slot.get("sha256") or "",
                    standby_version=slot.get("standby_version") or 0,
                    state=slot.get("state") or "",
                )
    query = "SELECT device_id, seq, rollout_id, wave, model, version, envelope FROM device_assignment"
    for device_id, seq, rollout_id, wave, model, version, envelope in connection.execute(sa.text(query)):
        if model:
            row = rows.setdefault((device_id, model), _empty(device_id, model))
            row.update(assigned_version=version, seq=seq, rollout_id=rollout_id, wave=wave)
            row["entry"] = _entry(bytes(envelope), model, seq, rollout_id) if version else None
    yield from rows.values()


def _empty(device_id: str, model: str) -> dict[str, Any]:
    return {
        "device_id": device_id, "model": model, "version": 0, "sha256": "", "standby_version": 0, "state": "",
        "assigned_version": 0, "seq": 0, "rollout_id": None, "wave": None, "removed": False, "entry": None,
    }  # fmt: skip


def _decoded(value: Any) -> dict[str, Any]:
    document = json.loads(value) if isinstance(value, str | bytes) else value
    return document if isinstance(document, dict) else {}


def _entry(envelope: bytes, model: str, seq: int, rollout_id: str | None) -> bytes | None:
    """The part of a stored assignment that is about its model; None where it cannot be read."""
    try:
        payload = json.loads(base64.b64decode(json.loads(envelope)["payload"]))
        slots = payload["slots"].values()
        entry = next(slot for slot in slots if slot["model"] == model)
    except (KeyError, StopIteration, TypeError, ValueError, AttributeError):
        return None
    return json.dumps({**entry, "seq": seq, "rollout": rollout_id, "probation": payload.get("probation")}).encode()
