"""Messages: what is written is read back, what is wrong is refused with a code, an old reader meets a newer writer."""

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavegate_shared import wire
from wavegate_shared.assignment import Assignment
from wavegate_shared.errors import TrustError
from wavegate_shared.states import DeviceState, Outcome

GOLDEN = Path(__file__).parent / "golden"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EXAMPLES: list[wire.Up] = [
    wire.Hello(boot=1, agent_version="1.0", facts={"cores": 4, "kernel": "6.1", "temperature_c": None}),
    wire.StateEvent(
        boot=1, seq=2, at=NOW, assignment_seq=3, slot="main", model="m", version=4, state=DeviceState.GOLDEN, detail="ü"
    ),
    wire.SignedReport(boot=1, seq=3, envelope=msgspec.Raw(b'{"payload":"e30="}')),
    wire.Window(
        boot=1,
        seq=4,
        slot="main",
        model="m",
        version=4,
        start=NOW,
        seconds=1.0,
        requests=3,
        errors=0,
        latency=b"\x01\x00",
    ),
    wire.ChunkRequest(xfer=1, sha256="a" * 64, indexes=[0, 5]),
    wire.DocumentRequest(xfer=2, name="metadata/timestamp.json"),
    wire.TimeRequest(nonce="0123456789abcdef"),
    wire.RenewRequest(csr="-----BEGIN CERTIFICATE REQUEST-----"),
]


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_device_message_is_read_back_as_it_was_written(message: wire.Up) -> None:
    assert wire.decode_up(wire.encode(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        wire.Assign(envelope=msgspec.Raw(b"{}")),
        wire.Stored(boot=1, seq=9),
        wire.Command(name="hello"),
        wire.Renewed(certificate="-----BEGIN CERTIFICATE-----"),
        wire.Renewed(code="renewal_refused", detail="revoked"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_server_message_is_read_back_as_it_was_written(message: wire.Down) -> None:
    assert wire.decode_down(wire.encode(message)) == message


def test_a_newer_peers_unknown_field_is_ignored() -> None:
    newer = wire.encode(wire.Stored(boot=1, seq=9))[:-1] + b',"colour":"red"}'
    assert wire.decode_down(newer) == wire.Stored(boot=1, seq=9)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"\x02{}",
        b"\x01",
        b"\x01null",
        b'\x01{"type":"nonsense"}',
        b'\x01{"type":"window"}',
        b'\x01{"type":"chunks","xfer":1,"sha256":"a","indexes":[]}',
        b'\x01{"type":"chunks","xfer":-1,"sha256":"a","indexes":[1]}',
        b"\x01" + b"[" * 5000,
        b"\x01" + b" " * wire.MAX_MESSAGE_BYTES,
    ],
)
def test_a_malformed_message_is_refused_with_its_code(data: bytes) -> None:
    with pytest.raises(TrustError) as caught:
        wire.decode_up(data)
    assert caught.value.code == "message_malformed"


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_the_one_error(data: bytes) -> None:
    for decode in (wire.decode_up, wire.decode_down):
        with suppress(TrustError):
            decode(b"\x01" + data)


def test_a_report_from_before_bench_rounds_is_read_as_it_was_meant() -> None:
    """The words of release 0.1, byte for byte: fields that came since then have their defaults."""
    report = msgspec.json.decode((GOLDEN / "report-0.1.json").read_bytes(), type=wire.Report)
    assert report.bench is not None
    assert (report.outcome, report.bench.p95_ms, report.bench.cpu_ratio) == (Outcome.PROVEN, 3.25, 0.75)
    assert (report.bench.beside, report.bench.p99_ms, report.bench.threads) == (None, None, 0)


def test_an_assignment_from_before_bench_rounds_names_nothing_beside() -> None:
    order = msgspec.json.decode((GOLDEN / "assignment-0.1.json").read_bytes(), type=Assignment)
    assert order.slots["main"].beside is None
