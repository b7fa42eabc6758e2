"""Signed documents and manifests: the signature first, then the schema, then the rules, each with its code."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from securesystemslib.signer import CryptoSigner

from wavegate_shared.assignment import ASSIGNMENT_TYPE, Assignment, SlotAssignment, check_assignment
from wavegate_shared.chunks import Chunk
from wavegate_shared.dsse import open_signed, seal
from wavegate_shared.errors import TrustError
from wavegate_shared.manifest import (
    Artifact,
    Golden,
    Manifest,
    TensorSpec,
    decode_manifest,
    encode_manifest,
    target_path,
)
from wavegate_shared.metrics import Metric

NOW = datetime(2026, 5, 1, tzinfo=UTC)
SIGNER = CryptoSigner.generate_ecdsa()
STRANGER = CryptoSigner.generate_ecdsa()


def assignment(**changes: Any) -> Assignment:
    slot = SlotAssignment(model="m", target="m/1.json", length=10, sha256="a" * 64, release_seq=1)
    plain: dict[str, Any] = {"device": "a", "seq": 5, "issued": NOW, "expires": NOW + timedelta(days=7)}
    return Assignment(**{**plain, "slots": {"main": slot}, **changes})


def artifact(name: str, role: str, size: int = 7) -> Artifact:
    return Artifact(name=name, role=role, sha256="b" * 64, size_bytes=size, chunks=[Chunk("c" * 32, size)])


def manifest(**changes: Any) -> Manifest:
    plain: dict[str, Any] = {
        "schema": 1,
        "model": "address-match",
        "version": 3,
        "created": NOW.isoformat(),
        "task": "pair-classification",
        "artifacts": [artifact("model.onnx", "model"), artifact("golden.npz", "golden")],
        "inputs": [TensorSpec("text", "BYTES", [-1, 2])],
        "outputs": [TensorSpec("logits", "FP32", [-1, 2])],
        "metric": Metric("accuracy"),
        "golden": Golden(artifact="golden.npz", limit=0.9, samples=10),
    }
    return Manifest(**{**plain, **changes})


def code_of(caught: pytest.ExceptionInfo[TrustError]) -> str:
    return caught.value.code


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
    assert code_of(caught) == attack.code


def test_without_any_trusted_key_nothing_opens() -> None:
    with pytest.raises(TrustError) as caught:
        open_signed(seal(assignment(), ASSIGNMENT_TYPE, SIGNER), Assignment, ASSIGNMENT_TYPE, [])
    assert code_of(caught) == "signature_invalid"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"device": "b"}, "wrong_device"),
        ({"seq": 4}, "assignment_replayed"),
        ({"expires": NOW}, "assignment_expired"),
        ({"issued": datetime(2026, 5, 1)}, "message_malformed"),
    ],
)
def test_an_assignment_that_does_not_apply_is_refused(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(TrustError) as caught:
        check_assignment(assignment(**changes), device="a", last_seq=5, now=NOW)
    assert code_of(caught) == code


def test_the_same_assignment_again_is_no_replay() -> None:
    check_assignment(assignment(seq=5), device="a", last_seq=5, now=NOW)


def test_a_manifest_is_read_back_as_it_was_written() -> None:
    assert decode_manifest(encode_manifest(manifest())) == manifest()
    assert encode_manifest(manifest()) == encode_manifest(decode_manifest(encode_manifest(manifest())))
    assert target_path("address-match", 3) == "address-match/3.json"


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 2},
        {"model": "../x"},
        {"version": 0},
        {"artifacts": [artifact("model.onnx", "model"), artifact("model.onnx", "golden")]},
        {"artifacts": [artifact("../model.onnx", "model"), artifact("golden.npz", "golden")]},
        {"artifacts": [artifact("golden.npz", "golden")]},
        {"artifacts": [artifact("model.onnx", "model", 1 << 20), artifact("golden.npz", "golden")]},
        {"golden": Golden(artifact="absent.npz", limit=0.9, samples=10)},
    ],
    ids=["newer", "path", "zero", "twice", "escape", "no model", "huge chunk", "no golden"],
)
def test_a_manifest_that_breaks_a_rule_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(TrustError) as caught:
        decode_manifest(msgspec.json.encode(manifest(**changes)))
    assert code_of(caught) == "manifest_invalid"


def test_chunks_must_add_up_to_the_file() -> None:
    short = Artifact(name="model.onnx", role="model", sha256="b" * 64, size_bytes=9, chunks=[Chunk("c" * 32, 7)])
    with pytest.raises(TrustError, match="add up"):
        decode_manifest(encode_manifest(manifest(artifacts=[short, artifact("golden.npz", "golden")])))
