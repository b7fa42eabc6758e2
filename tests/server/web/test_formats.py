"""Numbers as people read them."""

import pytest

from wavegate_server.web import formats
from wavegate_shared.metrics import Direction, Metric


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (0.0123, "0.012"),
        (0.5, "0.50"),
        (9.994, "9.99"),
        (9.996, "10.0"),
        (99.96, "100"),
        (12345.6, "12,346"),
    ],
)
def test_three_significant_digits(value: float | None, text: str) -> None:
    assert formats.number(value) == text


def test_units() -> None:
    assert formats.milliseconds(12.34) == "12.3 ms"
    assert formats.milliseconds(12_340) == "12.3 s"
    assert [formats.size(n) for n in (999, 1500, 4_510_000, 2e9)] == ["999 B", "1.50 kB", "4.51 MB", "2.00 GB"]
    assert formats.rate(0) == "0/s"
    assert formats.count(1234567) == "1,234,567"


def test_shares_and_their_differences() -> None:
    assert [formats.percent(v) for v in (0.978, 0.0007, 0.0, None)] == ["97.8 %", "0.07 %", "0.0 %", "–"]
    assert [formats.points(v) for v in (-0.0043, 0.05)] == ["−0.43 pt", "+5.00 pt"]
    assert [formats.signed(v) for v in (-2.5, 2.5)] == ["−2.50", "+2.50"]


def test_a_metric_reads_in_its_unit() -> None:
    assert formats.metric(0.98, None) == "98.0 %"
    assert formats.metric(1.84, Metric("mean_absolute_error", "mm", Direction.DOWN)) == "1.84 mm"
    assert formats.metric(None, None) == "–"
