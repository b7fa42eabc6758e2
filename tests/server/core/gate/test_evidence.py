import pytest

from wavegate_server.core.gate.evidence import (
    ERRORS,
    P99,
    Block,
    Cell,
    DeviceBlocks,
    MetricSpec,
    Track,
    compare,
    metric_specs,
    reduce_blocks,
)
from wavegate_shared.histogram import Histogram
from wavegate_shared.metrics import Direction, Metric

ACCURACY = MetricSpec("accuracy", "live accuracy", "share", Direction.UP, 0.005)
ERROR_MM = MetricSpec("mean_absolute_error", "live mean absolute error", "mm", Direction.DOWN, 0.1)


def track(device: str, before: list[float], after: list[float], samples: int = 10) -> Track:
    split = len(before)
    return Track(
        device,
        {number: Cell(value * samples, samples) for number, value in enumerate(before)},
        {split + number: Cell(value * samples, samples) for number, value in enumerate(after)},
    )


def test_what_happens_to_all_devices_cancels_out() -> None:
    found = compare(ACCURACY, [track("new", [0.9, 0.9], [0.7, 0.6])], [track("old", [0.8, 0.8], [0.6, 0.5])])

    assert found.blocks == pytest.approx([0.0, 0.0])


def test_lasting_differences_between_devices_cancel_out() -> None:
    found = compare(ACCURACY, [track("bad-camera", [0.5, 0.5], [0.5])], [track("old", [0.99, 0.99], [0.99])])

    assert found.blocks == pytest.approx([0.0])


def test_a_loss_is_positive_for_a_metric_that_should_rise() -> None:
    found = compare(ACCURACY, [track("new", [0.9], [0.7])], [track("old", [0.9], [0.9])])

    assert found.blocks == pytest.approx([0.2])


def test_a_loss_is_positive_for_a_metric_that_should_fall() -> None:
    found = compare(ERROR_MM, [track("new", [2.0], [2.5])], [track("old", [2.0], [2.1])])

    assert found.blocks == pytest.approx([0.4])


def test_without_controls_a_device_is_compared_with_its_own_past() -> None:
    found = compare(ACCURACY, [track("new", [0.9, 0.8], [0.7])], [])

    assert found.controls == 0
    assert found.blocks == pytest.approx([0.15])


def test_a_block_counts_only_where_both_sides_have_data() -> None:
    controls = [Track("old", {0: Cell(9, 10)}, {3: Cell(9, 10)})]

    found = compare(ACCURACY, [track("new", [0.9, 0.9], [0.8, 0.7, 0.6])], controls)

    assert len(found.baseline) == 1
    assert found.blocks == pytest.approx([0.2])


def test_a_device_without_a_baseline_cannot_be_compared() -> None:
    found = compare(ACCURACY, [Track("fresh", {}, {5: Cell(1, 10)})], [track("old", [0.9], [0.9])])

    assert found.measured
    assert found.shifts == []
    assert found.blocks == []


def test_sampling_noise_is_the_least_variance_of_a_share() -> None:
    """A baseline without one error is no proof that errors cannot happen."""
    spec = MetricSpec(ERRORS, "failed requests", "share", Direction.DOWN, 0.005)
    silent = compare(spec, [track("new", [0.0] * 10, [0.0], samples=40)], [])

    share = 1 / 402
    assert silent.floor == pytest.approx(share * (1 - share) / 40)


def test_shifts_tell_each_device_before_and_after() -> None:
    found = compare(ACCURACY, [track("b", [0.9, 0.7], [0.5]), track("a", [1.0], [0.9])], [])

    assert [(s.device, round(s.before, 6), round(s.after, 6), s.samples) for s in found.shifts] == [
        ("a", 1.0, 0.9, 10),
        ("b", 0.8, 0.5, 10),
    ]


def block(latencies: list[float], *, errors: int = 0, right: int = 0, labels: int = 0) -> Block:
    histogram = Histogram()
    for value in latencies:
        histogram.add(value)
    return Block(len(latencies), errors, float(right), labels, histogram)


def test_p99_is_the_share_of_requests_over_the_devices_own_p99() -> None:
    usual = [10.0] * 98 + [20.0, 20.0]
    slow = [10.0] * 70 + [50.0] * 30
    device = DeviceBlocks("d", {0: block(usual), 1: block(usual)}, {5: block(slow)})

    telemetry = reduce_blocks(
        metric_specs(Metric("accuracy"), {"accuracy": 0.01, P99: 0.01, ERRORS: 0.01}), [device], []
    )

    p99 = next(metric for metric in telemetry.metrics if metric.spec.name == P99)
    assert p99.shifts[0].before == pytest.approx(0.0)
    assert p99.shifts[0].after == pytest.approx(0.3)


def test_a_handful_of_requests_makes_no_p99() -> None:
    device = DeviceBlocks("d", {0: block([1.0] * 10)}, {5: block([9.0] * 10)})

    telemetry = reduce_blocks(
        metric_specs(Metric("accuracy"), {"accuracy": 0.01, P99: 0.01, ERRORS: 0.01}), [device], []
    )

    assert not next(metric for metric in telemetry.metrics if metric.spec.name == P99).measured


def test_live_figures_are_those_of_the_new_version_only() -> None:
    device = DeviceBlocks("d", {0: block([99.0] * 5)}, {5: block([10.0] * 100, errors=3)}, peak_memory_mb=80.0)

    live = reduce_blocks(
        metric_specs(Metric("accuracy"), {"accuracy": 0.01, P99: 0.01, ERRORS: 0.01}), [device], []
    ).live

    assert (live.requests, live.errors, live.peak_memory_mb) == (100, 3, 80.0)
    assert live.p95_ms == pytest.approx(10.0, rel=0.02)


def test_a_metric_without_a_margin_is_an_error() -> None:
    with pytest.raises(KeyError):
        metric_specs(Metric("mean_absolute_error"), {P99: 0.01, ERRORS: 0.01})


def test_a_device_is_live_when_it_served_requests_with_the_version() -> None:
    served = DeviceBlocks("live", after={1: Block(), 2: Block(requests=1)})
    idle = [DeviceBlocks("silent"), DeviceBlocks("idle", before={0: Block(requests=9)}, after={1: Block()})]
    found = reduce_blocks([ACCURACY], [served, *idle], [])
    assert (found.updated, found.live_devices, found.idle) == (3, 1, 2)


def test_a_device_is_live_by_its_own_word_before_its_telemetry_is_there() -> None:
    said = [DeviceBlocks("said", live_requests=15), DeviceBlocks("idle", live_requests=0)]
    assert reduce_blocks([ACCURACY], said, []).live_devices == 1
