"""Who may use which topic: the rule that keeps one device from another's traffic."""

import pytest

from wavegate_shared.topics import (
    DEVICE_ID,
    SHARDS,
    Topics,
    Uplink,
    device_may_publish,
    device_may_subscribe,
    shard_of,
)

TOPICS = Topics()


def test_an_uplink_topic_gives_back_its_parts() -> None:
    assert TOPICS.parse_up(TOPICS.up(3, "locker-1", "ev")) == Uplink(3, "locker-1", "ev")


@pytest.mark.parametrize(
    "topic",
    [
        "wavegate/v1/up/3/locker-1",
        "wavegate/v1/up/99/locker-1/ev",
        "wavegate/v1/up/x/locker-1/ev",
        "wavegate/v1/up/3/+/ev",
        "wavegate/v1/up/3/a/b/ev",
        "wavegate/v1/up/3/locker-1/other",
        "wavegate/v2/up/3/locker-1/ev",
        "wavegate/v1/d/locker-1/cmd",
    ],
)
def test_anything_else_is_no_uplink(topic: str) -> None:
    assert TOPICS.parse_up(topic) is None
    assert not device_may_publish(TOPICS, "locker-1", topic)


def test_a_device_publishes_only_as_itself() -> None:
    assert device_may_publish(TOPICS, "a", TOPICS.up(1, "a", "tm"))
    assert not device_may_publish(TOPICS, "a", TOPICS.up(1, "b", "tm"))
    assert not device_may_publish(TOPICS, "a", TOPICS.cmd("a"))


@pytest.mark.parametrize(
    "own", ["wavegate/v1/d/a/#", "wavegate/v1/d/a/cmd", "wavegate/v1/d/a/c", "wavegate/v1/x/+/c", "wavegate/v1/x/77/c"]
)
def test_a_device_reads_its_own_and_the_broadcasts(own: str) -> None:
    assert device_may_subscribe(TOPICS, "a", own)


@pytest.mark.parametrize(
    "foreign",
    [
        "#",
        "+/#",
        "wavegate/v1/#",
        "wavegate/v1/d/#",
        "wavegate/v1/d/+/cmd",
        "wavegate/v1/d/b/#",
        "wavegate/v1/d/b/cmd",
        "wavegate/v1/up/#",
        "wavegate/v1/up/0/a/ev",
        "$SYS/#",
        "$share/g/wavegate/v1/d/b/#",
        "wavegate/v1/x/#",
        "wavegate/v1/d/a",
    ],
)
def test_a_device_reads_nothing_else(foreign: str) -> None:
    assert not device_may_subscribe(TOPICS, "a", foreign)


@pytest.mark.parametrize("bad", ["", "+", "#", "a/b", "a b", "-a", "a" * 64, "é"])
def test_a_device_id_cannot_be_a_wildcard_or_a_level(bad: str) -> None:
    assert DEVICE_ID.fullmatch(bad) is None


def test_shards_are_stable_and_used_evenly() -> None:
    counts = [0] * SHARDS
    for number in range(1600):
        counts[shard_of(f"locker-{number:05}")] += 1
    assert shard_of("locker-00001") == shard_of("locker-00001")
    assert min(counts) > 50
