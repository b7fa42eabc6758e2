"""The database's tables (SQLModel). Not here: queries (`reads`, `adapters/store/telemetry`, ...) and migrations (`migrations/`).

Times are aware UTC. Table models are not validated by SQLModel: input is checked at the edge (API schemas, wire structs).
JSON columns hold what is only ever read back whole. The hot tables are in `tables_telemetry`, those of compression jobs in
`tables_compress`; both are named here too, so that one import knows the whole schema.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import Column, Index, LargeBinary, UniqueConstraint
from sqlmodel import Field, SQLModel

from wavegate_server.adapters.database.columns import METADATA, json_column, time_column
from wavegate_server.adapters.database.tables_bench import BenchArtifact, BenchCandidate, BenchRound
from wavegate_server.adapters.database.tables_compress import CompressEvent, CompressJob
from wavegate_server.adapters.database.tables_defaults import FleetDefault
from wavegate_server.adapters.database.tables_telemetry import DeviceRollup, FleetRollup, TelemetryWindow, Watermark

__all__ = [
    "METADATA",
    "ApiToken",
    "AuditEvent",
    "BenchArtifact",
    "BenchCandidate",
    "BenchRound",
    "BrowserSession",
    "CompressEvent",
    "CompressJob",
    "Device",
    "DeviceAssignment",
    "DeviceEvent",
    "DeviceReport",
    "DeviceRollup",
    "DeviceSlot",
    "EnrolToken",
    "FleetDefault",
    "FleetRollup",
    "GateDecision",
    "IdempotencyKey",
    "Model",
    "Outbox",
    "Revision",
    "RevokedCertificate",
    "Rollout",
    "RolloutDevice",
    "RolloutWave",
    "TelemetryWindow",
    "Version",
    "VersionArtifact",
    "Watermark",
]

# --- fleet ------------------------------------------------------------------------------------------------------------


class Device(SQLModel, table=True):
    """One agent's identity and what it last said. `public_key` (PEM, P-256) verifies its reports and is its TLS key."""

    __tablename__ = "device"
    id: str = Field(primary_key=True)
    hardware_class: str = Field(index=True)
    site: str = Field(index=True)
    groups: dict[str, Any] = json_column()  # {"labels": {"k": "v"}}
    shard: int
    state: str = "pending"  # pending | active | revoked
    bench: bool = False
    public_key: str = ""
    certificate_serial: str = ""
    certificate_expires: datetime | None = time_column(nullable=True)
    previous_public_key: str = ""  # reports that waited while the key changed are signed with it
    next_public_key: str = ""  # of a certificate that was issued and not used yet
    next_certificate: str = ""  # PEM; empty: none
    next_serial: str = ""
    next_expires: datetime | None = time_column(nullable=True)
    created_at: datetime = time_column()
    enrolled_at: datetime | None = time_column(nullable=True)
    last_seen: datetime | None = time_column(nullable=True)
    agent_version: str = ""
    facts: dict[str, Any] = json_column()
    quarantined: dict[str, Any] = json_column()  # {"digests": [...]}
    clock: str = "ok"
    runs: dict[str, Any] = json_column()  # {"runs": [...]}: the agent's newest starts, `core.identity_runs`
    cloned: str = ""  # two machines taking turns, named; empty: none
    assignment_seq: int = 0  # highest the device said it accepted
    slot_label: str = ""  # what an agent of release 0.1 calls its only slot; empty: slots are called by their models
    revision: int = 1


class EnrolToken(SQLModel, table=True):
    """One-time enrolment token of a device; only its hash is kept."""

    __tablename__ = "enrol_token"
    id: int | None = Field(default=None, primary_key=True)
    device_id: str = Field(index=True)
    token_hash: str = Field(unique=True)
    created_at: datetime = time_column()
    expires_at: datetime = time_column()
    used_at: datetime | None = time_column(nullable=True)


class RevokedCertificate(SQLModel, table=True):
    """A device certificate that must not be accepted any more: what the revocation list (CRL) is made from."""

    __tablename__ = "revoked_certificate"
    serial: str = Field(primary_key=True)
    device_id: str = Field(index=True)
    revoked_at: datetime = time_column()
    expires_at: datetime = time_column()  # after this it may leave the list
    reason: str = ""


class DeviceAssignment(SQLModel, table=True):
    """The newest signed assignment of each device, as sent: what a hello is answered with. Its parts are `DeviceSlot`s."""

    __tablename__ = "device_assignment"
    device_id: str = Field(primary_key=True)
    seq: int
    envelope: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    issued_at: datetime = time_column()
    expires_at: datetime = time_column()
    acknowledged: bool = False  # the device said it accepted this seq


class DeviceSlot(SQLModel, table=True):
    """One model of one device: what the device says it runs, and what it was assigned."""

    __tablename__ = "device_slot"
    __table_args__ = (Index("ix_device_slot_model", "model", "version"),)
    device_id: str = Field(primary_key=True)
    model: str = Field(primary_key=True)
    version: int = 0  # what it says; 0: nothing of this model serves
    sha256: str = ""
    standby_version: int = 0
    state: str = ""  # of the agent's machine; empty: never said
    assigned_version: int = 0  # 0: none assigned
    seq: int = 0  # of the assignment that first held this entry
    rollout_id: str | None = None
    wave: int | None = None
    removed: bool = False  # assigned to be taken away
    entry: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))  # a `SlotAssignment`, JSON


class DeviceEvent(SQLModel, table=True):
    """A state change or other event of a device, for its event log. Append-only."""

    __tablename__ = "device_event"
    id: int | None = Field(default=None, primary_key=True)
    device_id: str = Field(index=True)
    at: datetime = time_column(index=True)
    kind: str  # state | report | hello | enrolled | revoked | server
    assignment_seq: int = 0
    slot: str = ""
    model: str = ""
    version: int = 0
    state: str = ""
    code: str | None = None
    detail: str = ""


class DeviceReport(SQLModel, table=True):
    """A device-signed report, verbatim, with what the pages need beside it. Append-only."""

    __tablename__ = "device_report"
    id: int | None = Field(default=None, primary_key=True)
    device_id: str = Field(index=True)
    received_at: datetime = time_column()
    assignment_seq: int
    rollout_id: str | None = Field(default=None, index=True)
    model: str
    version: int
    outcome: str
    code: str | None = None
    bytes_fetched: int = 0
    served: int = 0
    body: dict[str, Any] = json_column()  # the decoded `Report`
    envelope: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


# --- models -----------------------------------------------------------------------------------------------------------


class Model(SQLModel, table=True):
    """A named line of versions, with its aliases."""

    __tablename__ = "model"
    name: str = Field(primary_key=True)
    task: str = ""
    description: str = ""
    created_at: datetime = time_column()
    champion: int | None = None
    challenger: int | None = None
    revision: int = 1


class Version(SQLModel, table=True):
    """One immutable version. `manifest` is exactly the bytes that the release key signs as TUF target."""

    __tablename__ = "version"
    __table_args__ = (UniqueConstraint("model", "number"),)
    id: int | None = Field(default=None, primary_key=True)
    model: str = Field(index=True)
    number: int
    state: str = "imported"  # imported | published | revoked
    created_at: datetime = time_column()
    published_at: datetime | None = time_column(nullable=True)
    manifest: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    manifest_sha256: str
    size_bytes: int
    recipe: str = "original"
    parent: int | None = None
    denied: bool = False  # a gate rolled it back: not offered again without --allow-denied
    metric_value: float | None = None  # on the host, golden set
    info: dict[str, Any] = json_column()  # parameters, flops, comparison, compression report


class VersionArtifact(SQLModel, table=True):
    """Which stored object each artifact of a version is; objects are named by digest and shared."""

    __tablename__ = "version_artifact"
    id: int | None = Field(default=None, primary_key=True)
    version_id: int = Field(index=True)
    name: str
    role: str
    sha256: str = Field(index=True)
    size_bytes: int


# --- rollouts ---------------------------------------------------------------------------------------------------------


class Rollout(SQLModel, table=True):
    """A plan that moves a set of devices to a version. `policy` is a `core.rollout.Policy` as JSON."""

    __tablename__ = "rollout"
    id: str = Field(primary_key=True)
    model: str = Field(index=True)
    version: int
    state: str = Field(index=True)
    wave: int = 0
    seed: str
    policy: dict[str, Any] = json_column()
    choice: dict[str, Any] | None = json_column(nullable=True)  # for which devices; None: for single ones
    late: bool = False  # it gives a fleet default to devices that came late
    reason: str = ""  # one plain sentence: why it is in this state
    said: dict[str, Any] = (
        json_column()
    )  # the same as a code with parameters (core.sentences); empty: a text without one
    created_at: datetime = time_column()
    created_by: str = ""
    started_at: datetime | None = time_column(nullable=True)
    finished_at: datetime | None = time_column(nullable=True)
    next_at: datetime | None = time_column(nullable=True)  # completed: its idle devices are watched until then
    back_from: datetime | None = time_column(nullable=True)  # when its rollback was decided, the newest one
    touched: int = 0  # raised by every word of a device that is in it
    revision: int = 1  # raised by every decision about it


class RolloutWave(SQLModel, table=True):
    """One slice of a rollout."""

    __tablename__ = "rollout_wave"
    rollout_id: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    name: str = ""
    state: str = "pending"
    size: int = 0
    approved_by: str = ""  # who approved promoting it, where the gate wants a person
    started_at: datetime | None = time_column(nullable=True)
    soak_started_at: datetime | None = time_column(nullable=True)
    finished_at: datetime | None = time_column(nullable=True)


class RolloutDevice(SQLModel, table=True):
    """One device in one rollout: its assignment's state."""

    __tablename__ = "rollout_device"
    __table_args__ = (Index("ix_rollout_device_device", "device_id"),)
    rollout_id: str = Field(primary_key=True)
    device_id: str = Field(primary_key=True)
    wave: int
    previous_version: int = 0  # 0: nothing ran before
    state: str = "scheduled"
    attempt: int = 1
    assignment_seq: int = 0
    published_at: datetime | None = time_column(nullable=True)
    accepted_at: datetime | None = time_column(nullable=True)
    swapped_at: datetime | None = time_column(nullable=True)
    finished_at: datetime | None = time_column(nullable=True)
    deadline: datetime | None = time_column(nullable=True)
    code: str | None = None
    reason: str = ""
    said: dict[str, Any] = (
        json_column()
    )  # `reason` as a code with parameters; empty: a text without one, as a device's own
    rollback_seq: int = 0  # seq of the rollback assignment sent to it
    back_at: datetime | None = time_column(nullable=True)  # when its part in the rollback was written
    live_requests: int | None = None  # served with the version, by its last word; None: it has said nothing


class GateDecision(SQLModel, table=True):
    """One evaluation of a gate that changed something or is the newest of its wave, with all inputs: it replays."""

    __tablename__ = "gate_decision"
    id: int | None = Field(default=None, primary_key=True)
    rollout_id: str = Field(index=True)
    wave: int
    at: datetime = time_column()
    verdict: str  # promote | hold | rollback
    sentence: str  # the one plain sentence the page leads with
    final: bool = False  # acted on
    evidence: dict[str, Any] = json_column()  # the gate's inputs and per-metric results


class Outbox(SQLModel, table=True):
    """Messages to devices, written in the transaction that decided them, sent by the outbox publisher."""

    __tablename__ = "outbox"
    id: int | None = Field(default=None, primary_key=True)
    dedup: str = Field(unique=True)
    topic: str
    payload: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    created_at: datetime = time_column()
    sent_at: datetime | None = time_column(nullable=True, index=True)


class AuditEvent(SQLModel, table=True):
    """Hash-chained log of publish, sign, wave step, rollback, revoke, enrol. hash = sha256(prev_hash + canonical row)."""

    __tablename__ = "audit_event"
    id: int | None = Field(default=None, primary_key=True)
    at: datetime = time_column()
    actor: str
    action: str
    subject: str
    detail: dict[str, Any] = json_column()
    prev_hash: str
    hash: str


class ApiToken(SQLModel, table=True):
    """An operator's token; only its hash is kept."""

    __tablename__ = "api_token"
    id: int | None = Field(default=None, primary_key=True)
    name: str
    prefix: str
    token_hash: str = Field(unique=True)
    role: str  # viewer | operator | publisher | admin
    created_at: datetime = time_column()
    expires_at: datetime | None = time_column(nullable=True)
    revoked: bool = False


class BrowserSession(SQLModel, table=True):
    """A signed-in browser, or a one-time key that becomes one; only the hash of its secret is kept."""

    __tablename__ = "browser_session"
    secret_hash: str = Field(primary_key=True)
    one_time: bool = False  # a login key: exchanged once for a session
    token_id: int | None = Field(default=None, index=True)  # the API token it was opened with; ends with it
    name: str
    role: str  # viewer | operator | publisher | admin
    created_at: datetime = time_column()
    expires_at: datetime = time_column(index=True)


class IdempotencyKey(SQLModel, table=True):
    """The answer to a POST that carried an `Idempotency-Key`, kept for a day so that a repeat gets the same answer."""

    __tablename__ = "idempotency_key"
    key: str = Field(primary_key=True)  # sha256 of caller + operation + the client's key
    body_hash: str
    status: int
    headers: dict[str, Any] = json_column()
    body: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))  # None: held a secret
    created_at: datetime = time_column(index=True)


class Revision(SQLModel, table=True):
    """One row (id 1) bumped with every visible change; pages poll it for their live tick."""

    __tablename__ = "revision"
    id: int = Field(default=1, primary_key=True)
    value: int = 0
