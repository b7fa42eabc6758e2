"""Which messages are new, which windows are sound, and what they add up to."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavegate_server.core.ingest import LEVELS, Place, Rollups, Sum, check_mark, check_window, is_new
from wavegate_shared.errors import TrustError
from wavegate_shared.histogram import Histogram
from wavegate_shared.wire import Window

START = datetime(2026, 3, 2, 23, 59, 30, tzinfo=UTC)
HERE = Place("locker-v2", "harbour")


def histogram(*latencies: float) -> Histogram:
    made = Histogram()
    for each in latencies:
        made.add(each)
    return made


def window(**changes: Any) -> Window:
    plain = Window(
        boot=1,
        seq=1,
        slot="default",
        model="m",
        version=3,
        start=START,
        seconds=60.0,
        requests=2,
        errors=1,
        latency=histogram(5.0, 8.0).encode(),
        score_sum=1.0,
        score_count=2,
        cpu_ms=10.0,
        rss_mb=80.0,
    )
    return msgspec.structs.replace(plain, **changes)


@pytest.mark.parametrize(
    ("mark", "watermark", "new"),
    [
        ((1, 1), None, True),
        ((1, 2), (1, 1), True),
        ((1, 1), (1, 1), False),
        ((1, 9), (2, 1), False),
        ((2, 1), (1, 9), True),
    ],
)
def test_a_message_is_new_above_the_watermark_boot_first(
    mark: tuple[int, int], watermark: tuple[int, int] | None, new: bool
) -> None:
    assert is_new(mark, watermark) is new


def test_a_sound_window_comes_with_its_start_and_histogram() -> None:
    sound = check_window(window())
    assert sound.start_ms == int(START.timestamp() * 1000)
    assert sound.histogram == histogram(5.0, 8.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"requests": 2**31},
        {"version": 2**63},
        {"score_sum": float("nan")},
        {"score_sum": float("inf")},
        {"cpu_ms": float("inf")},
        {"rss_mb": 1e300},
        {"seconds": 0.0},
        {"seconds": -5.0},
        {"seconds": float("nan")},
        {"seconds": 1e9},
        {"start": datetime(2026, 3, 2)},
        {"slot": "x" * 101},
        {"model": "a\0b"},
        {"latency": b"\x07nonsense"},
        {"latency": b""},
    ],
)
def test_a_window_no_table_can_hold_is_refused_by_itself(changes: dict[str, Any]) -> None:
    with pytest.raises(TrustError) as caught:
        check_window(window(**changes))
    assert caught.value.code == "message_malformed"


def test_a_number_no_device_counts_to_is_refused() -> None:
    check_mark(window(seq=2**53))
    with pytest.raises(TrustError):
        check_mark(window(seq=2**53 + 1))


def test_windows_add_up_on_every_level_for_the_device_and_the_fleet() -> None:
    rollups = Rollups()
    for step in range(3):  # 23:59:30, 00:00:30, 00:01:30: two days, two hours, three minutes
        rollups.add("dev-1", HERE, check_window(window(start=START + timedelta(minutes=step))))
    rollups.add("dev-2", HERE, check_window(window()))
    device, fleet = rollups.device_sums(), rollups.fleet_sums()
    sizes = {level: sum(key[1] == level for key in device) for level in LEVELS}
    assert sizes == {60: 4, 3600: 3, 86400: 3}
    for level in LEVELS:
        assert sum(part.requests for key, part in device.items() if key[1] == level) == 8
        assert sum(part.requests for key, part in fleet.items() if key[0] == level) == 8
    midnight = int(datetime(2026, 3, 3, tzinfo=UTC).timestamp())
    assert fleet[(86400, midnight, "m", 3, "locker-v2", "harbour")].latency == histogram(5.0, 8.0, 5.0, 8.0)
    assert fleet[(86400, midnight - 86400, "m", 3, "locker-v2", "harbour")].requests == 4


def test_the_fleet_is_split_by_version_class_and_site() -> None:
    rollups = Rollups()
    rollups.add("dev-1", HERE, check_window(window()))
    rollups.add("dev-1", HERE, check_window(window(version=4)))
    rollups.add("dev-2", Place("locker-v1", "hill"), check_window(window()))
    assert len([key for key in rollups.fleet_sums() if key[0] == 60]) == 3


def test_memory_is_a_maximum_and_cpu_a_sum() -> None:
    part = Sum("m")
    for rss, cpu in ((80.0, 10.0), (None, None), (90.5, 5.0)):
        part.add_window(check_window(window(rss_mb=rss, cpu_ms=cpu)))
    assert (part.rss_mb, part.cpu_ms, part.anon_mb) == (90.5, 15.0, None)


@given(st.lists(st.lists(st.floats(0.1, 1000), max_size=20), min_size=1, max_size=6))
def test_the_wire_form_of_a_sum_is_that_of_its_histogram(parts: list[list[float]]) -> None:
    """Also where the sum is one window's and its bytes are passed on as they came."""
    rollups = Rollups()
    for latencies in parts:
        rollups.add("dev-1", HERE, check_window(window(latency=histogram(*latencies).encode())))
    everything = histogram(*[each for latencies in parts for each in latencies])
    for part in [*rollups.device_sums().values(), *rollups.fleet_sums().values()]:
        assert part.encoded() == part.latency.encode() == everything.encode()
