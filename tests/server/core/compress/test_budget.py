"""Budgets: what an operator writes, what it means, and the verdict by the bad end of the interval."""

import pytest

from wavegate_server.core.compress.budget import (
    Measured,
    allowed_drop,
    default_budget,
    judge,
    parse_budget,
    slo_words,
    words,
)
from wavegate_server.core.compress.paired import Drop
from wavegate_shared.errors import UsageError
from wavegate_shared.manifest import Slo
from wavegate_shared.metrics import Direction, Metric

ACCURACY = Metric("accuracy")
ERROR = Metric("mean_absolute_error", "mm", Direction.DOWN)


def measured(metric: Metric = ACCURACY, *, before: float = 0.97, drop: Drop | None = None) -> Measured:
    drop = drop or Drop(0.005, -0.002, 0.012, 1000, 9)
    value = before - drop.value if metric.direction is Direction.UP else before + drop.value
    return Measured(
        size_bytes=2_500_000,
        size_before=10_000_000,
        p50_ms=2.0,
        p50_before=5.0,
        p95_ms=3.0,
        peak_mb=70.0,
        metric=metric,
        value=value,
        value_before=before,
        drop=drop,
    )


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("size=-70%", True),
        ("size=-80%", False),
        ("size<=2.5MB", True),
        ("size<=2MB", False),
        ("size<=2500KB", True),
        ("speed=2x", True),
        ("speed=3x", False),
        ("drop=2pt", True),
        ("drop=1pt", False),  # the point estimate of 0.5 would do, its upper bound of 1.2 does not
        ("accuracy>=0.95", True),
        ("accuracy>=0.96", False),
        ("p95<=3ms", True),
        ("p95<=2.9ms", False),
        ("peak_mem<=128MB", True),
    ],
)
def test_each_item_is_judged(text: str, met: bool) -> None:
    (verdict,) = judge(parse_budget(text, ACCURACY), measured())
    assert verdict.met is met
    assert verdict.item == text


def test_an_error_metric_is_judged_the_other_way_round() -> None:
    worse = measured(ERROR, before=2.0, drop=Drop(0.06, 0.02, 0.10, 1000, 1000))
    verdicts = judge(
        parse_budget("error=+5%,error=+4%,mean_absolute_error<=2.1mm,mean_absolute_error<=2.05mm", ERROR), worse
    )
    assert [verdict.met for verdict in verdicts] == [True, False, True, False]


def test_several_items_keep_their_order() -> None:
    items = parse_budget(" size=-70% , drop=2pt,speed=1.2x ", ACCURACY)
    assert [item.text for item in items] == ["size=-70%", "drop=2pt", "speed=1.2x"]


@pytest.mark.parametrize(
    "text", ["", ",", "size", "size=80%", "size=-80", "drop=2%", "speed=-3x", "accuracy<=0.9", "vibes>=1", "drop=-2pt"]
)
def test_what_is_not_understood_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UsageError, match="drop=2pt") as caught:
        parse_budget(text, ACCURACY)
    assert caught.value.code == "invalid"


def said(text: str, metric: Metric = ACCURACY, *, drop: Drop | None = None) -> str:
    subject = measured(metric, drop=drop)
    items = parse_budget(text, metric)
    return words(judge(items, subject)[0], items[0], subject)


def test_a_verdict_in_words_tells_a_loss_from_too_few_samples() -> None:
    assert said("drop=2pt") == "drop=2pt: met"
    assert said("size=-80%") == "size=-80%: not met, measured -0.75"
    assert "1000 samples show a loss of 0.005" in said("drop=0.3pt")
    unproven = said("drop=1pt")
    assert "not enough samples to prove it: 1000 show a loss of 0.005, but cannot rule out 0.012" in unproven
    assert "about 1,960 samples would" in unproven
    assert "leaves no room" in said("drop=0pt", drop=Drop(0.0, -0.01, 0.01, 200, 0))


@pytest.mark.parametrize(
    ("text", "metric", "before", "room"),
    [
        ("size=-70%", ACCURACY, 0.97, None),
        ("drop=2pt,accuracy>=0.96", ACCURACY, 0.97, 0.01),
        ("error=+5%", ERROR, 2.0, 0.1),
        ("mean_absolute_error<=2.5mm", ERROR, 2.0, 0.5),
    ],
)
def test_how_much_loss_a_budget_leaves_room_for(text: str, metric: Metric, before: float, room: float | None) -> None:
    found = allowed_drop(parse_budget(text, metric), metric, before)
    assert found == (room if room is None else pytest.approx(room))


def test_a_download_item_is_of_the_compressed_file() -> None:
    items = parse_budget("download=-30%,download<=2MB", ACCURACY)
    assert [(item.kind, round(item.limit, 3)) for item in items] == [("download_change", -0.3), ("download_bytes", 2e6)]
    with pytest.raises(UsageError):
        parse_budget("download=30%", ACCURACY)


@pytest.mark.parametrize(
    ("text", "metric", "words"),
    [
        ("error=+5%", Metric("accuracy"), "more is better in accuracy; write drop=2pt"),
        ("drop=2pt", ERROR, "is no share but in mm; write error="),
    ],
)
def test_an_item_that_means_nothing_for_the_metric_is_refused_with_the_one_that_does(
    text: str, metric: Metric, words: str
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        parse_budget(text, metric)
    assert caught.value.code == "invalid"


def test_what_the_bundle_promises_is_in_the_default_budget_and_told_in_any_case() -> None:
    slo = Slo(p95_ms=12.5, peak_memory_mb=128)
    text = default_budget(Metric("accuracy"), slo)
    assert text == "size=-70%,drop=2pt,p95<=12.5ms,peak_mem<=128MB"
    assert [item.kind for item in parse_budget(text, Metric("accuracy"))][2:] == ["p95_ms", "peak_mb"]
    assert default_budget(ERROR) == "size=-70%,error=+5%"
    told = slo_words(Slo(p95_ms=2.5, peak_memory_mb=128), measured(), "host only")
    assert told == [
        "the bundle's SLO p95<=2.5ms: BROKEN, measured 3 (host only)",
        "the bundle's SLO peak_mem<=128MB: kept, measured 70 (host only)",
    ]
    assert slo_words(Slo(error_ceiling=0.01), measured(), "host only") == []
