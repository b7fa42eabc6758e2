"""Topic names, and who may use which: the one place where a topic is spelled.

    <p>/d/<dev>/cmd           server -> device, QoS 1   assignment, command, time answer, "stored up to"
    <p>/d/<dev>/c             server -> device, QoS 0   chunks and documents this device asked for
    <p>/x/<xfer>/c            server -> wave            broadcast chunks (reserved for a later release)
    <p>/up/<shard>/<dev>/ev   device -> server, QoS 1   hello, states, signed reports
    <p>/up/<shard>/<dev>/tm   device -> server, QoS 1   telemetry windows
    <p>/up/<shard>/<dev>/rq   device -> server, QoS 1   chunk, document and time requests

A device publishes only under its own `up/+/<dev>/` and subscribes only to `d/<dev>/#` and `x/+/c`; only the server
publishes to `d/` and `x/`. At most 7 slashes a topic, because one large managed broker allows no more.
"""

import re
import zlib
from dataclasses import dataclass

__all__ = [
    "DEFAULT_PREFIX",
    "DEVICE_ID",
    "SHARDS",
    "Topics",
    "Uplink",
    "device_may_publish",
    "device_may_subscribe",
    "shard_of",
]

DEFAULT_PREFIX = "wavegate/v1"
SHARDS = 16
DEVICE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
"""A device id is also a certificate's common name and a topic level: no wildcard, slash or blank can be in it."""


@dataclass(frozen=True, slots=True)
class Uplink:
    """A parsed topic of the device -> server direction. Attributes: shard, device, channel (`ev`, `tm` or `rq`)."""

    shard: int
    device: str
    channel: str


@dataclass(frozen=True, slots=True)
class Topics:
    """All topic names below one prefix."""

    prefix: str = DEFAULT_PREFIX

    def cmd(self, device: str) -> str:
        """Where the server talks to one device."""
        return f"{self.prefix}/d/{device}/cmd"

    def chunks(self, device: str) -> str:
        """Where one device gets the bytes it asked for."""
        return f"{self.prefix}/d/{device}/c"

    def device_filter(self, device: str) -> str:
        """What a device subscribes to."""
        return f"{self.prefix}/d/{device}/#"

    def up(self, shard: int, device: str, channel: str) -> str:
        """Where a device publishes; `channel` is `ev`, `tm` or `rq`."""
        return f"{self.prefix}/up/{shard}/{device}/{channel}"

    def up_filter(self, shard: int | None = None) -> str:
        """What an ingest worker subscribes to: one shard, or all of them."""
        return f"{self.prefix}/up/{'+' if shard is None else shard}/+/+"

    def parse_up(self, topic: str) -> Uplink | None:
        """The parts of an uplink topic, or None for any other topic."""
        head = f"{self.prefix}/up/"
        parts = topic[len(head) :].split("/") if topic.startswith(head) else []
        if len(parts) != 3 or not parts[0].isdigit() or parts[2] not in ("ev", "tm", "rq"):
            return None
        if int(parts[0]) >= SHARDS or DEVICE_ID.fullmatch(parts[1]) is None:
            return None
        return Uplink(int(parts[0]), parts[1], parts[2])


def shard_of(device: str) -> int:
    """The shard of a device, fixed at enrolment: 0 <= shard < SHARDS."""
    return zlib.crc32(device.encode()) % SHARDS


def device_may_publish(topics: Topics, device: str, topic: str) -> bool:
    """Whether the access rule lets `device` publish to `topic`."""
    up = topics.parse_up(topic)
    return up is not None and up.device == device


def device_may_subscribe(topics: Topics, device: str, topic_filter: str) -> bool:
    """Whether the access rule lets `device` subscribe to `topic_filter` (also a concrete topic, at delivery)."""
    own = f"{topics.prefix}/d/{device}/"
    if topic_filter.startswith(own) and topic_filter[len(own) :] in ("#", "+", "cmd", "c"):
        return True
    parts = topic_filter[len(topics.prefix) + 1 :].split("/") if topic_filter.startswith(topics.prefix + "/") else []
    return len(parts) == 3 and parts[0] == "x" and parts[2] == "c" and "#" not in parts[1]
