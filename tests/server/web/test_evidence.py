"""What the gate stored, as the page shows it."""

from typing import Any

import pytest

from tests.support.seed_gate import bad_decision, refused_decision
from wavegate_server.web.evidence import gate_view

DEVICES = [f"d{n}" for n in range(5)]


def test_real_evidence_becomes_a_picture_per_metric() -> None:
    view = gate_view(bad_decision(DEVICES)[2])
    assert [m.result.name for m in view.metrics] == ["accuracy", "p99", "errors"]
    accuracy = view.metrics[0]
    assert accuracy.picture is not None
    assert accuracy.picture.low > accuracy.picture.margin  # beyond the margin: that is why it was rolled back
    assert [shift[0] for shift in accuracy.shifts] == DEVICES
    assert view.updated == 5


def test_a_refusal_has_no_metrics() -> None:
    view = gate_view(refused_decision(DEVICES)[2])
    assert view.metrics == ()
    assert [failure.device for failure in view.failed] == ["locker-hz-01"]


@pytest.mark.parametrize("stored", [{}, {"inputs": {}, "decision": {}}, {"inputs": 1, "decision": "x"}])
def test_evidence_that_cannot_be_read_does_not_break_the_page(stored: dict[str, Any]) -> None:
    assert not gate_view(stored).readable
