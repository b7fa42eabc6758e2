"""What the control process and its workers say to each other, and what two workers say at a hand-over.

Each message is one packet of a SOCK_SEQPACKET socket pair, encoded as msgpack; file descriptors travel beside it. A call
carries a number and is answered by exactly one `Done` or `Failed` with that number. Not on any network: both ends are the
same installed release, so there is no schema number.
"""

from typing import TypeAlias

import msgspec

from wavegate_agent.core.live_stats import LiveStats
from wavegate_shared.histogram import Histogram
from wavegate_shared.wire import GoldenResult

__all__ = [
    "ASK_ONLY",
    "MAX_PACKET_BYTES",
    "BenchRun",
    "BenchSample",
    "Call",
    "Claim",
    "Collect",
    "Complete",
    "Connections",
    "Done",
    "Failed",
    "Golden",
    "HandOver",
    "Load",
    "OwnRequest",
    "Peer",
    "Promote",
    "Reply",
    "RingFile",
    "RingPart",
    "Routes",
    "Sent",
    "Serve",
    "ServedModel",
    "Stats",
    "Stop",
    "VersionCounts",
    "decode_call",
    "decode_peer",
    "decode_reply",
    "encode",
    "from_counts",
    "to_counts",
]

MAX_PACKET_BYTES = 192 * 1024
"""Below the kernel's default send buffer (208 KiB), which bounds one packet."""
ASK_ONLY = -1

# --- control process -> worker ----------------------------------------------------------------------------------------


class Load(msgspec.Struct, frozen=True, kw_only=True, tag="load"):
    """Load the version in `directory`, warm it. `check_digests` off only for a restart of what ran here before."""

    call: int
    directory: str
    intra_threads: int
    concurrency: int
    memory_limit_mb: int | None = None
    cpu_limit_s: int | None = None
    check_digests: bool = True


class Golden(msgspec.Struct, frozen=True, kw_only=True, tag="golden"):
    """Run the golden set through the whole pipeline."""

    call: int


class BenchRun(msgspec.Struct, frozen=True, kw_only=True, tag="bench"):
    """Run golden sample number `sample` once and time it; unless `force`, not while a live request is in flight.

    Sample `ASK_ONLY`: run nothing, only say whether it would have run.
    """

    call: int
    sample: int
    force: bool = False


class Promote(msgspec.Struct, frozen=True, kw_only=True, tag="promote"):
    """Take live priority with every thread, and lift the limits a candidate has."""

    call: int


class Serve(msgspec.Struct, frozen=True, kw_only=True, tag="serve"):
    """Accept connections on the listening sockets and the inbox sent along; with `peer`, the last descriptor leads to the giver."""

    call: int
    peer: bool = False


class ServedModel(msgspec.Struct, frozen=True):
    """A model of this device and the version in charge of it."""

    name: str
    version: int


class Routes(msgspec.Struct, frozen=True, kw_only=True, tag="routes"):
    """The models this device serves now; beside it, one descriptor each that leads to the inbox of the model's worker."""

    call: int
    models: list[ServedModel]


class HandOver(msgspec.Struct, frozen=True, kw_only=True, tag="hand_over"):
    """Stop accepting and give everything to the worker behind the descriptor sent along."""

    call: int


class OwnRequest(msgspec.Struct, frozen=True, kw_only=True, tag="own_request"):
    """Write golden sample number `sample` as the body of an inference request into the file sent along.

    `Done.text` is the token that marks this one request as the agent's own, `Done.left` the length of the JSON header.
    """

    call: int
    sample: int


class Collect(msgspec.Struct, frozen=True, kw_only=True, tag="collect"):
    """Answer with the counts since the last collection."""

    call: int


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag="stop"):
    """Finish requests in flight, send the last counts, exit."""

    call: int


Call: TypeAlias = Load | Golden | BenchRun | Promote | Routes | Serve | HandOver | OwnRequest | Collect | Stop

# --- worker -> control process ----------------------------------------------------------------------------------------


class BenchSample(msgspec.Struct, frozen=True, kw_only=True):
    """One timed run; `ran` False when a live request was in flight, `disturbed` when one arrived meanwhile.

    `arrivals`: requests this worker ever got; two answers tell whether there is live traffic.
    """

    ran: bool
    wall_ms: float = 0.0
    cpu_ms: float = 0.0
    disturbed: bool = False
    arrivals: int = 0


class VersionCounts(msgspec.Struct, frozen=True, kw_only=True):
    """`LiveStats` on the wire."""

    version: int
    model: str
    requests: int
    errors: int
    latency: bytes
    score_sum: float
    score_count: int
    cpu_ms: float
    rss_mb: float | None
    anon_mb: float | None


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """A call succeeded. `text` and `left` are the call's own (priority in force; connections still to be handed over)."""

    call: int
    golden: GoldenResult | None = None
    bench: BenchSample | None = None
    text: str = ""
    left: int = 0


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """A call failed with an error code."""

    call: int
    code: str
    detail: str


class Stats(msgspec.Struct, frozen=True, kw_only=True, tag="stats"):
    """Counts by version since the last `Stats`; call 0 when sent unasked before the worker ends."""

    call: int
    versions: list[VersionCounts]


Reply: TypeAlias = Done | Failed | Stats

# --- worker -> worker -------------------------------------------------------------------------------------------------


class RingFile(msgspec.Struct, frozen=True, tag="ring_file"):
    """The recent predictions, in the memory file sent along."""


class RingPart(msgspec.Struct, frozen=True, tag="ring_part"):
    """Predictions made since the ring was sent (`encode_ring`)."""

    data: bytes


class Connections(msgspec.Struct, frozen=True, tag="connections"):
    """Client connections, one descriptor each: (number, bytes of an unfinished request head already read)."""

    items: list[tuple[int, bytes]]


class Sent(msgspec.Struct, frozen=True, tag="sent"):
    """Round `serial` of giving is over; the giver still serves what is `left` and gives it after its answer."""

    serial: int
    left: int


class Claim(msgspec.Struct, frozen=True, tag="claim"):
    """The taker is about to read from this connection: the giver closes its copy."""

    number: int


class Complete(msgspec.Struct, frozen=True, tag="complete"):
    """The taker answers for every connection up to round `serial`."""

    serial: int


Peer: TypeAlias = RingFile | RingPart | Connections | Sent | Claim | Complete

_ENCODER = msgspec.msgpack.Encoder()
_CALL: msgspec.msgpack.Decoder[Call] = msgspec.msgpack.Decoder(Call)
_REPLY: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)
_PEER: msgspec.msgpack.Decoder[Peer] = msgspec.msgpack.Decoder(Peer)


def encode(message: Call | Reply | Peer) -> bytes:
    """One packet."""
    return _ENCODER.encode(message)


def decode_call(packet: bytes) -> Call:
    """Read a control process's packet."""
    return _CALL.decode(packet)


def decode_reply(packet: bytes) -> Reply:
    """Read a worker's packet to the control process. Raises msgspec.DecodeError: the worker is not sane."""
    return _REPLY.decode(packet)


def decode_peer(packet: bytes) -> Peer:
    """Read a packet of another worker."""
    return _PEER.decode(packet)


def to_counts(stats: LiveStats) -> VersionCounts:
    """The wire form; `from_counts(to_counts(s)) == s`."""
    return VersionCounts(
        version=stats.version,
        model=stats.model,
        requests=stats.requests,
        errors=stats.errors,
        latency=stats.latency.encode(),
        score_sum=stats.score_sum,
        score_count=stats.score_count,
        cpu_ms=stats.cpu_ms,
        rss_mb=stats.rss_mb,
        anon_mb=stats.anon_mb,
    )


def from_counts(counts: VersionCounts) -> LiveStats:
    """Back from the wire form. Raises ValueError when the histogram is damaged."""
    return LiveStats(
        version=counts.version,
        model=counts.model,
        requests=counts.requests,
        errors=counts.errors,
        latency=Histogram.decode(counts.latency),
        score_sum=counts.score_sum,
        score_count=counts.score_count,
        cpu_ms=counts.cpu_ms,
        rss_mb=counts.rss_mb,
        anon_mb=counts.anon_mb,
    )
