"""The server's two MQTT clients (paho): what devices send (`Uplink`) and what devices are sent (`Downlink`).

Both connect with mutual TLS under an identity of their own, reconnect by themselves and are safe to call from any thread.
Not here: what a message means (`ingest`, `delivery`) and which broker it is (`adapters/broker/process`).
"""

import logging
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from wavegate_shared.errors import TransferError

__all__ = ["Ack", "Downlink", "MqttAccess", "Uplink", "UplinkHandler"]

KEEPALIVE_S = 60
"""Not lower: a handler that waits for the database also delays the pings (measured: 4 s gave 632 redeliveries)."""
RECONNECT_MIN_S = 0.2
RECONNECT_MAX_S = 10.0
PUBLISH_TIMEOUT_S = 30.0
MAX_IN_FLIGHT = 200
RETRY_S = 0.25

_LOG = logging.getLogger(__name__)

Ack = Callable[[], None]
"""Tells the broker that the message is durable; any thread, once. After a reconnect it does nothing: the broker sends the
message again and the watermark drops it."""
UplinkHandler = Callable[[str, bytes, Ack], None]
"""(topic, payload, ack), called on the network thread; it may block, and that is the back-pressure."""


@dataclass(frozen=True, slots=True)
class MqttAccess:
    """How to reach the broker, and as whom. The client id is the certificate's common name, `identity`."""

    host: str
    port: int
    identity: str
    ca: Path
    certificate: Path
    key: Path


class _Link:
    """What both clients share: the connection."""

    def __init__(self, access: MqttAccess, *, clean_session: bool, manual_ack: bool) -> None:
        self.access = access
        self._connected = threading.Event()
        self._closing = False
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=access.identity,
            clean_session=clean_session,
            protocol=MQTTProtocolVersion.MQTTv311,
            manual_ack=manual_ack,
        )
        context = ssl.create_default_context(cafile=access.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(access.certificate, access.key)
        self._client.tls_set_context(context)
        self._client.reconnect_delay_set(RECONNECT_MIN_S, RECONNECT_MAX_S)  # type: ignore[arg-type]  # it takes fractions
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect

    def start(self) -> None:
        """Connect in the background, for as long as it takes."""
        self._client.connect_async(self.access.host, self.access.port, keepalive=KEEPALIVE_S)
        self._client.loop_start()

    def close(self) -> None:
        """Disconnect and end the network thread. Idempotent."""
        self._closing = True
        self._client.disconnect()
        self._client.loop_stop()
        self._connected.clear()

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted the connection."""
        return self._connected.is_set()

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait for the connection; False when it did not come in time."""
        return self._connected.wait(timeout_s)

    def _opened(self) -> None:
        """Hook: the connection is up."""

    def _lost(self) -> None:
        """Hook: the connection is down."""

    def _on_connect(
        self, _client: paho.Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if reason.is_failure:
            _LOG.warning("mqtt_refused identity=%s reason=%s", self.access.identity, reason)
            return
        _LOG.info("mqtt_connected identity=%s broker=%s:%d", self.access.identity, self.access.host, self.access.port)
        self._opened()
        self._connected.set()

    def _on_disconnect(
        self, _client: paho.Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        self._connected.clear()
        self._lost()
        if not self._closing:
            _LOG.warning("mqtt_disconnected identity=%s reason=%s", self.access.identity, reason)


class Uplink(_Link):
    """Receives what devices publish; every message is acknowledged by hand, after it was stored.

    Args:
        access: where, and the identity (`ingest-<n>`).
        filters: topic filters, subscribed at QoS 1 after every CONNECT.
        handler: gets each message.
        persistent: ask the broker to keep the session while nobody is connected (it saves re-sends; not on the embedded
            broker, which refuses it).
    """

    def __init__(
        self, access: MqttAccess, *, filters: Sequence[str], handler: UplinkHandler, persistent: bool = False
    ) -> None:
        super().__init__(access, clean_session=not persistent, manual_ack=True)
        self._filters = [(topic_filter, 1) for topic_filter in filters]
        self._handler = handler
        self._connection = 0
        self._ack_lock = threading.Lock()
        self._subscribed = threading.Event()
        self._client.on_message = self._on_message
        self._client.on_subscribe = self._on_subscribe

    def wait_subscribed(self, timeout_s: float) -> bool:
        """Wait until the broker has confirmed the subscription; False when it did not in time."""
        return self._subscribed.wait(timeout_s)

    def _opened(self) -> None:
        self._client.subscribe(self._filters)

    def _lost(self) -> None:
        self._subscribed.clear()
        with self._ack_lock:
            self._connection += 1

    def _on_subscribe(
        self, _client: paho.Client, _data: Any, _mid: int, codes: list[ReasonCode], _properties: Properties | None
    ) -> None:
        if any(code.is_failure for code in codes):
            _LOG.warning("mqtt_subscription_refused identity=%s", self.access.identity)
            return
        self._subscribed.set()

    def _on_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        ack = partial(self._ack, self._connection, message.mid, message.qos)
        self._handler(message.topic, bytes(message.payload), ack)

    def _ack(self, connection: int, mid: int, qos: int) -> None:
        # a packet id means nothing on a later connection: it may be another message's by then
        with self._ack_lock:
            if connection == self._connection:
                self._client.ack(mid, qos)


class Downlink(_Link):
    """Publishes to devices, from any thread."""

    def __init__(self, access: MqttAccess) -> None:
        super().__init__(access, clean_session=True, manual_ack=False)
        self._client.max_inflight_messages_set(MAX_IN_FLIGHT)

    def publish(self, topic: str, payload: bytes, qos: int, *, timeout_s: float = PUBLISH_TIMEOUT_S) -> None:
        """Hand a message to the broker: QoS 1 returns once the broker has it, QoS 0 once it is on the wire.

        Waits for the connection and tries again after a loss, so the broker may get a QoS 1 message twice.

        Raises:
            TransferError: `not_connected` when it did not succeed within `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0 and not self._closing:
            if not self._connected.wait(min(left, RETRY_S)):
                continue
            info = self._client.publish(topic, payload, qos)
            if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS and self._delivered(info, deadline):
                return
            self._pause(min(RETRY_S, max(0.0, deadline - time.monotonic())))
        raise TransferError(
            "not_connected", f"the broker at {self.access.host}:{self.access.port} did not take a message"
        )

    def offer(self, topic: str, payload: bytes, qos: int) -> bool:
        """Send without waiting, or not at all: for messages whose loss costs nothing. Returns whether it was sent."""
        if not self._connected.is_set():
            return False
        return self._client.publish(topic, payload, qos).rc == MQTTErrorCode.MQTT_ERR_SUCCESS

    def _delivered(self, info: paho.MQTTMessageInfo, deadline: float) -> bool:
        try:
            while not info.is_published():
                if not self._connected.is_set() or time.monotonic() >= deadline:
                    return False
                info.wait_for_publish(RETRY_S)
        except (ValueError, RuntimeError):  # how paho says that its queue is full or the connection went away
            return False
        return True

    def _pause(self, seconds: float) -> None:
        threading.Event().wait(seconds)
