import pytest

from tests.server.core.gate.test_decision import evidence
from wavegate_server.core.gate.verdict import Failure, GateEvidence, Guards
from wavegate_server.core.gate.wording import amount, failures, refused


@pytest.mark.parametrize(
    ("value", "unit", "text"), [(0.979, "share", "97.9 %"), (0.0, "share", "0.0 %"), (2.4213, "mm", "2.42 mm")]
)
def test_amounts(value: float, unit: str, text: str) -> None:
    assert amount(value, unit) == text


def given() -> GateEvidence:
    return evidence()


@pytest.mark.parametrize(
    ("code", "verb"), [("golden_failed", "refused"), ("broken", "is broken after"), ("load_failed", "failed")]
)
def test_one_device_that_said_no(code: str, verb: str) -> None:
    assert refused(Failure("kiosk-01", code, "why"), given()) == f"kiosk-01 {verb} version 4 ({code}, why)"


def test_without_words_the_code_stands_alone() -> None:
    assert refused(Failure("kiosk-01", "load_failed"), given()) == "kiosk-01 failed version 4 (load_failed)"


def test_a_single_failure_names_its_device() -> None:
    assert failures(Guards(size=1, budget=0, failed=[Failure("d", "disk_full")]), given()).startswith("d failed")
