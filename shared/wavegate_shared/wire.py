"""The messages on MQTT. Generated docs: `docs/protocol.md`.

The first byte of a message names its format: `FORMAT_JSON` (0x01) is one JSON object with a `type` field. 0x02 is reserved
for zstd-compressed batches. Binary frames of the `c` topic are in `chunks.py`. Unknown fields are ignored (an old peer can
read a newer one's message), unknown types are refused.

Telemetry, states and reports carry (boot, seq): `boot` rises with each start of the agent, `seq` with each message of that
start. The device keeps them in its outbox until the server answers `stored` up to a (boot, seq); the server drops what is
at or below the device's watermark. So a duplicate or a lost message costs nothing.
"""

from datetime import datetime
from typing import Annotated, TypeAlias

import msgspec

from wavegate_shared.decoding import MALFORMED
from wavegate_shared.errors import TrustError
from wavegate_shared.states import DeviceState, Outcome

__all__ = [
    "FORMAT_JSON",
    "MAX_MESSAGE_BYTES",
    "RENEWAL_PROOF",
    "REPORT_TYPE",
    "Assign",
    "Bench",
    "BenchSide",
    "ChunkRequest",
    "Command",
    "DocumentRequest",
    "Down",
    "GoldenResult",
    "Hello",
    "RenewRequest",
    "Renewed",
    "Report",
    "Running",
    "SignedReport",
    "StateEvent",
    "Stored",
    "TimeAnswer",
    "TimeRequest",
    "Up",
    "Window",
    "decode_down",
    "decode_up",
    "encode",
]

FORMAT_JSON = 0x01
MAX_MESSAGE_BYTES = 128 * 1024
REPORT_TYPE = "application/vnd.wavegate.report+json"
RENEWAL_PROOF = b"wavegate certificate renewal\n"
"""What a device signs with its old key, followed by the server's challenge and its new request, to renew over HTTPS."""

Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Text = Annotated[str, msgspec.Meta(max_length=500)]


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """What one slot of the device runs. `version` 0: nothing yet."""

    model: str
    version: Count
    sha256: str = ""
    standby_version: Count = 0
    state: DeviceState = DeviceState.IDLE


# --- device -> server -------------------------------------------------------------------------------------------------


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    """First message after every CONNECT: the inventory. The server answers with the desired state.

    Attributes:
        hardware_class: as enrolled, for display; the registry's word counts.
        assignment_seq: highest assignment accepted.
        clock: `ok` or `suspect`.
        run: drawn anew by each start of the agent: two copies of one identity taking turns are told apart by it.
        certificate: serial number (lower-case hex) of the certificate this connection was made with.
        facts: figures and strings from /proc and /sys (memory_total_mb, cpu_count, cgroup, kernel, runtime, ...).
    """

    boot: Count
    agent_version: str
    hardware_class: str = ""
    slots: dict[str, Running] = {}
    assignment_seq: Count = 0
    quarantined: list[str] = []
    clock: str = "ok"
    certificate: Annotated[str, msgspec.Meta(max_length=64)] = ""
    run: Annotated[str, msgspec.Meta(max_length=32)] = ""
    facts: dict[str, str | int | float | None] = {}


class StateEvent(msgspec.Struct, frozen=True, kw_only=True, tag="state"):
    """The device entered a state. `code` is an error code when a failure led here.

    On probation it is repeated, at most once a minute, while `live_requests` are too few; `detail` says what is waited for.
    """

    boot: Count
    seq: Positive
    at: datetime
    assignment_seq: Count
    slot: str
    model: str
    version: Count
    state: DeviceState
    code: str | None = None
    detail: Text = ""
    progress: float | None = None
    live_requests: Count | None = None


class GoldenResult(msgspec.Struct, frozen=True, kw_only=True):
    """The golden set's outcome on the device; `value` None when an output was not finite."""

    passed: bool
    value: float | None
    limit: float
    samples: Count
    max_difference: float | None = None


class BenchSide(msgspec.Struct, frozen=True, kw_only=True):
    """The original in a bench round, measured in turn with the candidate and at the same priority. `sha256`: its manifest."""

    sha256: str
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cpu_ms: float
    load_ms: float = 0.0
    rss_mb: float | None = None
    anon_mb: float | None = None
    peak_mb: float | None = None
    golden: GoldenResult | None = None


class Bench(msgspec.Struct, frozen=True, kw_only=True):
    """Candidate beside the active version, paired and interleaved; None for the active side on a first install.

    Ratios are candidate / active. CPU time is per inference, thread time. `contention` is the share of slots skipped
    because a live request was in flight. In a bench round the active side is the original, told whole in `beside`.
    """

    runs: Count
    p50_ms: float
    p95_ms: float
    cpu_ms: float
    active_p50_ms: float | None = None
    cpu_ratio: float | None = None
    wall_ratio: float | None = None
    contention: float = 0.0
    load_ms: float = 0.0
    rss_mb: float | None = None
    anon_mb: float | None = None
    temperature_c: float | None = None
    p99_ms: float | None = None
    peak_mb: float | None = None
    threads: Count = 0
    frequency_mhz: float | None = None
    beside: BenchSide | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A device's signed word on how an assignment ended (payload type `REPORT_TYPE`).

    `served`, `errors` and `p99_ms` are of live requests; `self_requests` are the agent's own, which proved what live ones did not.
    """

    device: str
    boot: Count
    seq: Positive
    at: datetime
    assignment_seq: Count
    rollout: str | None
    slot: str
    model: str
    version: Count
    sha256: str
    outcome: Outcome
    code: str | None = None
    detail: Text = ""
    active_version: Count = 0
    golden: GoldenResult | None = None
    bench: Bench | None = None
    served: Count = 0
    errors: Count = 0
    probation_s: float = 0.0
    p99_ms: float | None = None
    bytes_fetched: Count = 0
    swap_ms: float | None = None
    self_requests: Count = 0


class SignedReport(msgspec.Struct, frozen=True, kw_only=True, tag="report"):
    """A report in its DSSE envelope; the outer (boot, seq) are for the outbox and must equal the inner ones."""

    boot: Count
    seq: Positive
    envelope: msgspec.Raw


class Window(msgspec.Struct, frozen=True, kw_only=True, tag="window"):
    """What one slot served in one span of time, by version.

    Attributes:
        start: aware UTC by the device's clock.
        seconds: length of the window.
        latency: encoded `Histogram` of request latencies in ms (base64 in JSON).
        score_sum, score_count: live metric from label feedback, in the metric's unit.
        cpu_ms: CPU time of the worker in the window.
        rss_mb, anon_mb: worker memory; None where it cannot be read.
    """

    boot: Count
    seq: Positive
    slot: str
    model: str
    version: Count
    start: datetime
    seconds: float
    requests: Count
    errors: Count
    latency: bytes
    score_sum: float = 0.0
    score_count: Count = 0
    cpu_ms: float | None = None
    rss_mb: float | None = None
    anon_mb: float | None = None
    agent_rss_mb: float | None = None
    temperature_c: float | None = None


class ChunkRequest(msgspec.Struct, frozen=True, kw_only=True, tag="chunks"):
    """Send these chunks of an artifact to `d/<dev>/c`, at most `WINDOW` of them, under transfer number `xfer`."""

    xfer: Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
    sha256: str
    indexes: Annotated[list[Count], msgspec.Meta(min_length=1, max_length=64)]


class DocumentRequest(msgspec.Struct, frozen=True, kw_only=True, tag="document"):
    """Send a metadata document from `offset` on: `metadata/<file>` or `targets/<path>`."""

    xfer: Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
    name: Annotated[str, msgspec.Meta(max_length=300)]
    offset: Count = 0
    max_bytes: Positive = 1 << 20


class TimeRequest(msgspec.Struct, frozen=True, kw_only=True, tag="time"):
    """Nonce challenge for trusted time."""

    nonce: Annotated[str, msgspec.Meta(min_length=16, max_length=64)]


class RenewRequest(msgspec.Struct, frozen=True, kw_only=True, tag="renew"):
    """A certificate for a new key, please: `csr` is a PEM request that the new key signed. Asked again until it is answered."""

    csr: Annotated[str, msgspec.Meta(max_length=8192)]


Up: TypeAlias = Hello | StateEvent | SignedReport | Window | ChunkRequest | DocumentRequest | TimeRequest | RenewRequest

# --- server -> device -------------------------------------------------------------------------------------------------


class Assign(msgspec.Struct, frozen=True, kw_only=True, tag="assign"):
    """The device's assignment in its DSSE envelope."""

    envelope: msgspec.Raw


class Stored(msgspec.Struct, frozen=True, kw_only=True, tag="stored"):
    """Everything up to (boot, seq) is durable on the server; the device may drop it from its outbox."""

    boot: Count
    seq: Count


class TimeAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="time"):
    """Signed answer to a `TimeRequest`: DSSE of {nonce, time} by the time key."""

    envelope: msgspec.Raw


class Renewed(msgspec.Struct, frozen=True, kw_only=True, tag="renewed"):
    """Answer to a `RenewRequest`: the certificate in PEM, or the code and detail of a refusal.

    The old certificate holds until a `Hello` names the new one.
    """

    certificate: Annotated[str, msgspec.Meta(max_length=16384)] = ""
    code: str | None = None
    detail: Text = ""


class Command(msgspec.Struct, frozen=True, kw_only=True, tag="command"):
    """An unsigned wish that can do no harm: `hello` (say hello again) or `stop` (device was revoked)."""

    name: str


Down: TypeAlias = Assign | Stored | TimeAnswer | Renewed | Command

_UP: msgspec.json.Decoder[Up] = msgspec.json.Decoder(Up)
_DOWN: msgspec.json.Decoder[Down] = msgspec.json.Decoder(Down)
_ENCODER = msgspec.json.Encoder()


def encode(message: Up | Down) -> bytes:
    """The wire form: format byte, then JSON."""
    return bytes((FORMAT_JSON,)) + _ENCODER.encode(message)


def decode_up(data: bytes) -> Up:
    """Read a device's message. Raises TrustError `message_malformed`."""
    try:
        return _UP.decode(_body(data))
    except MALFORMED as error:
        raise TrustError("message_malformed", str(error)) from error


def decode_down(data: bytes) -> Down:
    """Read a server's message. Raises TrustError `message_malformed`."""
    try:
        return _DOWN.decode(_body(data))
    except MALFORMED as error:
        raise TrustError("message_malformed", str(error)) from error


def _body(data: bytes) -> bytes:
    if len(data) > MAX_MESSAGE_BYTES:
        raise TrustError("message_malformed", f"message of {len(data)} bytes, at most {MAX_MESSAGE_BYTES}")
    if not data or data[0] != FORMAT_JSON:
        raise TrustError("message_malformed", f"unknown format byte {data[:1].hex() or '(empty)'}")
    return data[1:]
