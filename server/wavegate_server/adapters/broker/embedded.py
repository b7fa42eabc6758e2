"""The embedded MQTT broker: a child process of its own, `python -m wavegate_server.adapters.broker.embedded CONFIG`.

The library (amqtt) behind our TLS gate and our access rule; good for tens of devices on one machine, with nothing to
install. The process prints one line of JSON, `{"port": N}`, once it accepts connections, and ends when its standard input
reaches its end: it never outlives the server that started it. Who starts and restarts it: `adapters/broker/process`.
"""

import asyncio
import json
import logging
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from amqtt.broker import Broker
from amqtt.contexts import Action, BrokerConfig, ListenerConfig, ListenerType
from amqtt.session import Session

from wavegate_server.adapters.broker.acl import CertificateAuth, TopicRule
from wavegate_server.adapters.broker.tls_front import TlsFront, TlsFrontSettings
from wavegate_shared.topics import Topics

__all__ = ["GuardedBroker", "main", "read_settings", "run"]

MAX_BACKLOG = 2000
"""Messages waiting to be sent on; above it the gate stops reading from devices."""
_LISTENER = "default"


class GuardedBroker(Broker):
    """The library's broker with the access rule asked at once instead of in a task of its own.

    The library walks its table of subscriptions while it awaits the topic plug-in; a client that subscribes meanwhile
    changes the table, the walk fails and an acknowledged message is lost. Asking without awaiting keeps the walk whole.
    """

    def __init__(self, topics: Topics) -> None:
        plugins = {
            f"{CertificateAuth.__module__}.{CertificateAuth.__qualname__}": {},
            f"{TopicRule.__module__}.{TopicRule.__qualname__}": {"prefix": topics.prefix},
        }
        listener = ListenerConfig(type=ListenerType.EXTERNAL, bind="external")
        super().__init__(BrokerConfig(listeners={_LISTENER: listener}, plugins=plugins))
        rule = self.plugins_manager.get_plugin(TopicRule.__name__)
        if not isinstance(rule, TopicRule):
            raise TypeError("the access rule is not loaded")
        self._rule: TopicRule = rule

    async def _topic_filtering(self, session: Session, topic: str, action: Action) -> bool:
        return self._rule.decide(session, topic, action)

    def busy(self) -> bool:
        """Whether more messages wait than `MAX_BACKLOG`."""
        return bool(self._broadcast_queue.qsize() > MAX_BACKLOG)


def read_settings(path: Path) -> TlsFrontSettings:
    """The gate's settings from the JSON file that `adapters/broker/process` writes."""
    raw: dict[str, Any] = json.loads(path.read_bytes())
    return TlsFrontSettings(
        host=raw["host"],
        port=raw["port"],
        ca=Path(raw["ca"]),
        certificate=Path(raw["certificate"]),
        key=Path(raw["key"]),
        deny_list=Path(raw["deny_list"]),
        revoked_serials=Path(raw["revoked_serials"]),
        topics=Topics(raw["topic_prefix"]),
        max_packet_bytes=raw["max_packet_bytes"],
    )


async def run(settings: TlsFrontSettings, stop: asyncio.Event, started: Callable[[int], None]) -> None:
    """Broker and gate until `stop` is set; `started` is told the port."""
    broker = GuardedBroker(settings.topics)
    await broker.start()
    gate = TlsFront(settings, lambda reader, writer: broker.external_connected(reader, writer, _LISTENER), broker.busy)
    try:
        started(await gate.start())
        await stop.wait()
    finally:
        await gate.stop()
        await broker.shutdown()


async def _main(path: Path) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, stop.set)
    parent = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(parent), sys.stdin)
    orphaned = asyncio.create_task(_until_orphaned(parent, stop))
    await run(read_settings(path), stop, lambda port: print(json.dumps({"port": port}), flush=True))
    orphaned.cancel()


async def _until_orphaned(parent: asyncio.StreamReader, stop: asyncio.Event) -> None:
    while await parent.read(1024):
        pass
    stop.set()


def main() -> None:
    """Entry point of the child process."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr)
    warnings.simplefilter("ignore", DeprecationWarning)  # the library's; a server's log is not the place for them
    asyncio.run(_main(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
