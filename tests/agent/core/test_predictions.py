"""The ring of recent predictions."""

from array import array

import pytest

from wavegate_agent.core.predictions import Prediction, PredictionRing, decode_ring, encode_ring
from wavegate_shared.errors import UsageError


def prediction(name: str, version: int = 1, rows: int = 1) -> Prediction:
    return Prediction(name, version, rows, array("f", [0.25, 0.75] * rows).tobytes())


def test_a_label_finds_its_version_and_counts_once() -> None:
    ring = PredictionRing()
    ring.add(prediction("a", version=4))
    found, first = ring.label("a", 1)
    assert (found.version, found.rows(), first) == (4, [[0.25, 0.75]], True)
    assert ring.label("a", 1)[1] is False


def test_an_unknown_id_and_a_wrong_number_of_labels_are_refused() -> None:
    ring = PredictionRing()
    ring.add(prediction("a", rows=2))
    with pytest.raises(UsageError) as unknown:
        ring.label("b", 1)
    with pytest.raises(UsageError) as wrong:
        ring.label("a", 1)
    assert (unknown.value.code, wrong.value.code) == ("not_found", "invalid")
    assert ring.label("a", 2)[1] is True


def test_the_oldest_leave_first_by_number_and_by_bytes() -> None:
    ring = PredictionRing(max_entries=3, max_bytes=1000)
    for name in "abcd":
        ring.add(prediction(name))
    assert [entry.id for entry in ring.entries()] == ["b", "c", "d"]
    small = PredictionRing(max_entries=100, max_bytes=16)
    for name in "abcd":
        small.add(prediction(name))
    assert [entry.id for entry in small.entries()] == ["c", "d"]


def test_too_large_an_output_is_not_kept() -> None:
    ring = PredictionRing(max_bytes=4)
    assert ring.add(prediction("a")) is False
    assert len(ring) == 0


def test_a_later_request_takes_the_place_of_one_with_the_same_id() -> None:
    ring = PredictionRing(max_bytes=16)
    ring.add(prediction("a", version=1))
    ring.add(prediction("b", version=1))
    ring.add(prediction("a", version=2))
    assert [(entry.id, entry.version) for entry in ring.entries()] == [("b", 1), ("a", 2)]


def test_what_another_worker_remembered_never_pushes_out_what_is_here() -> None:
    ring = PredictionRing(max_entries=3)
    ring.add(prediction("new", version=2))
    ring.add(prediction("both", version=2))
    ring.add_older([prediction(name, version=1) for name in ("x", "y", "both", "z")])
    assert [(entry.id, entry.version) for entry in ring.entries()] == [("z", 1), ("new", 2), ("both", 2)]


def test_after_a_revert_the_newest_answers_are_kept() -> None:
    """1 served a to c, 2 took over with them and answered d and e, labelled c, and hands all of it back to 1."""
    first, second = PredictionRing(max_entries=4), PredictionRing(max_entries=4)
    for name in ("a", "b", "c"):
        first.add(prediction(name, version=1))
    second.add_older(decode_ring(encode_ring(first.entries())))
    for name in ("d", "e"):
        second.add(prediction(name, version=2))
    second.label("c", 1)
    first.add(prediction("late", version=1))  # answered after its ring had gone
    first.add_older(second.entries())
    assert [entry.id for entry in first.entries()] == ["c", "d", "e", "late"]
    assert first.label("c", 1)[1] is False  # counted once, by whoever came first


def test_the_ring_travels_with_its_labels() -> None:
    labelled = prediction("a")
    labelled.labelled = True
    assert decode_ring(encode_ring([labelled, prediction("b", 2, 3)])) == [labelled, prediction("b", 2, 3)]
