"""Sealed documents: the signature first, then the schema, each failure with its code."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from securesystemslib.signer import CryptoSigner

from wavegate_shared.assignment import ASSIGNMENT_TYPE, Assignment, SlotAssignment
from wavegate_shared.dsse import open_signed, seal
from wavegate_shared.errors import TrustError
from wavegate_shared.metrics import Metric

NOW = datetime(2026, 5, 1, tzinfo=UTC)
SIGNER = CryptoSigner.generate_ecdsa()
STRANGER = CryptoSigner.generate_ecdsa()


def assignment(**changes: Any) -> Assignment:
    slot = SlotAssignment(model="m", target="m/1.json", length=10, sha256="a" * 64, release_seq=1)
    plain: dict[str, Any] = {"device": "a", "seq": 5, "issued": NOW, "expires": NOW + timedelta(days=7)}
    return Assignment(**{**plain, "slots": {"main": slot}, **changes})


def test_a_sealed_assignment_opens_with_the_right_key() -> None:
    sealed = seal(assignment(), ASSIGNMENT_TYPE, SIGNER)
    assert open_signed(sealed, Assignment, ASSIGNMENT_TYPE, [SIGNER.public_key]) == assignment()


@dataclass
class Attack:
    name: str
    data: bytes
    code: str


def attacks() -> list[Attack]:
    sealed = seal(assignment(), ASSIGNMENT_TYPE, SIGNER)
    parsed = msgspec.json.decode(sealed)
    other = msgspec.json.decode(seal(assignment(seq=99), ASSIGNMENT_TYPE, STRANGER))
    return [
        Attack("stranger's key", seal(assignment(), ASSIGNMENT_TYPE, STRANGER), "signature_invalid"),
        Attack("another kind of document", seal(assignment(), "application/other", SIGNER), "message_malformed"),
        Attack("payload exchanged", msgspec.json.encode({**parsed, "payload": other["payload"]}), "signature_invalid"),
        Attack("no signature", msgspec.json.encode({**parsed, "signatures": []}), "signature_invalid"),
        Attack("not an envelope", b"{}", "message_malformed"),
        Attack("not JSON", b"\xff\xfe", "message_malformed"),
        Attack("a list", b"[1]", "message_malformed"),
        Attack("huge", b" " * (2 << 20), "message_malformed"),
        Attack("signed, but another schema", seal(Metric("accuracy"), ASSIGNMENT_TYPE, SIGNER), "message_malformed"),
    ]


@pytest.mark.parametrize("attack", attacks(), ids=lambda attack: attack.name)
def test_an_envelope_that_is_not_right_is_refused(attack: Attack) -> None:
    with pytest.raises(TrustError) as caught:
        open_signed(attack.data, Assignment, ASSIGNMENT_TYPE, [SIGNER.public_key])
    assert caught.value.code == attack.code


def test_without_any_trusted_key_nothing_opens() -> None:
    with pytest.raises(TrustError) as caught:
        open_signed(seal(assignment(), ASSIGNMENT_TYPE, SIGNER), Assignment, ASSIGNMENT_TYPE, [])
    assert caught.value.code == "signature_invalid"
