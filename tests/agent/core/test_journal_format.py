"""The journal's form: whole records come back, torn ones never do, and the longest one fits."""

import struct
import zlib
from dataclasses import replace
from datetime import UTC, datetime

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from wavegate_agent.core.journal_format import (
    MAX_QUARANTINED,
    MAX_SLOTS,
    SLOT_BYTES,
    Record,
    applied,
    best,
    decode_slot,
    encode_slot,
)
from wavegate_agent.core.machine_types import AssignedVersion, Forgive, Quarantine, Slot, Version, short
from wavegate_shared.assignment import Probation
from wavegate_shared.states import DeviceState, Outcome

LONG = Version(model="m" * 63, version=2**31, sha256="f" * 64)
PROBATION = Probation(
    seconds=1e6 + 1 / 3, requests=10**7, max_error_share=1 / 3, max_p99_ratio=10 / 3, idle_after=1e6 + 1 / 3
)
ASSIGNED = AssignedVersion(
    seq=2**31, version=LONG, rollout="r" * 40, allow_older=False, override=False, probation=PROBATION, bench=False
)
FULL_SLOT = Slot(
    state=DeviceState.DISCARDING,
    active=LONG,
    standby=LONG,
    spare=LONG,
    assigned=ASSIGNED,
    pending=ASSIGNED,
    outcome=Outcome.REVERTED,
    code="assignment_replayed",
    detail=short('\u6d4b\n"' * 300),
    attempts=3,
    moves=40,
)


def test_a_record_comes_back_as_it_was() -> None:
    record = Record(boot=7, last_seq=9, time_floor=datetime(2026, 3, 1, tzinfo=UTC), slots={"main": FULL_SLOT})
    assert decode_slot(encode_slot(3, record)) == (3, record)


def test_the_fullest_record_fits_a_slot() -> None:
    slots = {f"{number:020d}": FULL_SLOT for number in range(MAX_SLOTS)}
    record = Record(boot=2**40, last_seq=2**31, slots=slots, quarantined=("e" * 64,) * MAX_QUARANTINED)
    assert len(encode_slot(2**60, record)) == SLOT_BYTES


@given(st.integers(0, SLOT_BYTES - 1), st.integers(1, 255))
def test_a_changed_byte_is_noticed_or_does_not_matter(at: int, flip: int) -> None:
    record = Record(boot=1, slots={"main": FULL_SLOT})
    data = bytearray(encode_slot(5, record))
    data[at] ^= flip
    assert decode_slot(bytes(data)) in (None, (5, record))


def test_a_torn_write_leaves_the_record_before() -> None:
    old, new = Record(boot=1), Record(boot=2, slots={"main": FULL_SLOT})
    for cut in range(0, 1200, 37):
        torn = encode_slot(3, new)[:cut].ljust(SLOT_BYTES, b"\0")
        assert best(encode_slot(2, old) + torn) == (2, old)
    assert best(encode_slot(2, old) + encode_slot(3, new)) == (3, new)


def test_nothing_usable_is_nothing() -> None:
    assert best(b"") is None
    assert best(b"\0" * 2 * SLOT_BYTES) is None
    assert best(b"WGJ1" + b"\xff" * 2 * SLOT_BYTES) is None


def test_quarantine_is_bounded_newest_last_and_can_be_forgiven() -> None:
    record = Record()
    for number in range(MAX_QUARANTINED + 3):
        record = applied(record, "main", Slot(), (Quarantine(f"{number}"),))
    assert len(record.quarantined) == MAX_QUARANTINED
    assert record.quarantined[-1] == f"{MAX_QUARANTINED + 2}"
    again = applied(record, "main", Slot(), (Quarantine("5"),))
    assert again.quarantined[-1] == "5"
    assert again.quarantined.count("5") == 1
    assert "5" not in applied(again, "main", Slot(), (Forgive("5"),)).quarantined


def test_waits_are_not_journalled() -> None:
    waiting = replace(FULL_SLOT, due=12.0, retries=4)
    assert applied(Record(), "main", waiting, ()).slots["main"] == FULL_SLOT


def test_a_journal_of_release_0_1_keeps_its_assignment() -> None:
    """It called the field `order`; a detail that quotes the word is left as it is."""
    slot = replace(FULL_SLOT, detail='said "order": x')
    record = Record(boot=7, slots={"main": slot})
    body = msgspec.json.encode(record).replace(b'"assigned":', b'"order":')
    crc = zlib.crc32(struct.pack("<QI", 3, len(body)) + body)
    data = struct.pack("<4sQII", b"WGJ1", 3, len(body), crc) + body
    assert decode_slot(data.ljust(SLOT_BYTES, b"\0")) == (3, record)
