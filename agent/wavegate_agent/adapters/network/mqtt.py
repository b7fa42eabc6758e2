"""The connection to the broker: the one door to paho-mqtt on the device.

MQTT 3.1.1 over mutual TLS, clean session, client id = device id. Every connection is a new paho client, so nothing that an
earlier one had queued can overtake the outbox. Reconnects wait with full jitter, 1 to 60 s, the first one at most a second.
Not here: what messages mean (`control/downloads.py`, `control/agent.py`), what is kept until the server has it (`adapters/disk/outbox.py`).
"""

import logging
import secrets
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from wavegate_shared.topics import Topics

__all__ = ["Address", "BrokerConnection", "wait_s"]

_LOG = logging.getLogger(__name__)
KEEPALIVE_S = 60
CONNECT_TIMEOUT_S = 15.0
IN_FLIGHT = 20
_FIRST_MAX_S = 1.0
_MAX_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the broker is and what proves who we are."""

    host: str
    port: int
    device: str
    topics: Topics
    ca: Path
    certificate: Path
    key: Path


def wait_s(failures: int, chance: float) -> float:
    """Seconds before connection attempt number `failures` + 1; `chance` in [0, 1) is the full jitter.

    Full jitter spreads a fleet evenly over the whole interval.
    """
    return chance * min(_MAX_S, _FIRST_MAX_S * 2.0 ** min(max(0, failures - 1), 16))


class BrokerConnection:
    """Keeps one connection to the broker. Callbacks run on paho's network thread and must not block.

    Args:
        address: see `Address`.
        on_message: (topic, payload) of everything under `d/<device>/`.
        on_connected: after each CONNECT, when the subscription is in force.
        on_acked: when a QoS 1 message was taken by the broker.
    """

    def __init__(
        self,
        address: Address,
        *,
        on_message: Callable[[str, bytes], None],
        on_connected: Callable[[], None],
        on_acked: Callable[[], None],
    ) -> None:
        self._address = address
        self._on_message, self._on_connected, self._on_acked = on_message, on_connected, on_acked
        self._client: paho.Client | None = None
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._subscribed = False
        self._refused = ""
        self._in_flight = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self.connects = 0
        self.penalty_s = 0.0
        """Extra wait before the next connection; set when the server says that this device was revoked."""

    @property
    def connected(self) -> bool:
        """Whether messages can be sent and received now."""
        return self._subscribed

    @property
    def room(self) -> int:
        """How many more messages may be under way."""
        return max(0, IN_FLIGHT - self._in_flight)

    def start(self) -> None:
        """Connect, and stay connected until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """Disconnect and end the threads."""
        self._stopping.set()
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(CONNECT_TIMEOUT_S + 5)

    def reconnect(self) -> None:
        """End the present connection; the next one reads key and certificate anew."""
        self._ended.set()

    def publish(self, topic: str, payload: bytes, qos: int = 1) -> bool:
        """Hand a message to the connection; False when there is none. It may be lost even after True."""
        client = self._client
        if client is None or not self._subscribed:
            return False
        with self._lock:
            self._in_flight += qos
        info = client.publish(topic, payload, qos)
        if info.rc != paho.MQTT_ERR_SUCCESS:
            with self._lock:
                self._in_flight = max(0, self._in_flight - qos)
            return False
        return True

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            failures = 0 if self._session() else failures + 1
            wait = wait_s(failures, secrets.randbelow(1 << 30) / (1 << 30)) + self.penalty_s
            self.penalty_s = 0.0
            self._stopping.wait(wait)

    def _session(self) -> bool:
        """One connection from CONNECT to its end; whether it was ever up."""
        self._ended.clear()
        self._refused = ""
        try:
            client = self._new_client()
            client.connect(self._address.host, self._address.port, KEEPALIVE_S)
        except (OSError, ValueError) as error:
            _LOG.info("mqtt_unreachable device=%s error=%s", self._address.device, error)
            return False
        before = self.connects
        self._client = client
        client.loop_start()
        if not self._stopping.is_set():
            self._ended.wait()
        self._subscribed = False
        self._client = None
        client.disconnect()
        client.loop_stop()
        if self._refused:
            _LOG.warning("mqtt_refused device=%s reason=%s", self._address.device, self._refused)
        return self.connects > before

    def _new_client(self) -> paho.Client:
        address = self._address
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=address.device,
            protocol=paho.MQTTv311,
            clean_session=True,
            reconnect_on_failure=False,
        )
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(address.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(str(address.certificate), str(address.key))
        client.tls_set_context(context)
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(IN_FLIGHT)
        client.on_connect = self._connected
        client.on_subscribe = self._subscribed_now
        client.on_disconnect = self._disconnected
        client.on_message = self._message
        client.on_publish = self._acked
        with self._lock:
            self._in_flight = 0
        return client

    def _connected(
        self, client: paho.Client, _user: object, _flags: object, reason: object, _properties: object
    ) -> None:
        if getattr(reason, "is_failure", False):
            self._refused = str(reason)
            return
        client.subscribe(self._address.topics.device_filter(self._address.device), 1)

    def _subscribed_now(self, _client: paho.Client, _user: object, _mid: int, reasons: object, _props: object) -> None:
        # The code in a SUBACK is not believed either way (brokers grant what they never deliver), but it ends the wait.
        self.connects += 1
        self._subscribed = True
        _LOG.info("mqtt_connected device=%s host=%s", self._address.device, self._address.host)
        self._on_connected()

    def _disconnected(
        self, _client: paho.Client, _user: object, _flags: object, reason: object, _props: object
    ) -> None:
        if self._subscribed and not self._stopping.is_set():
            _LOG.info("mqtt_disconnected device=%s reason=%s", self._address.device, reason)
        self._subscribed = False
        self._ended.set()

    def _message(self, _client: paho.Client, _user: object, message: paho.MQTTMessage) -> None:
        self._on_message(message.topic, bytes(message.payload))

    def _acked(self, _client: paho.Client, _user: object, _mid: int, _reason: object, _properties: object) -> None:
        with self._lock:
            self._in_flight = max(0, self._in_flight - 1)
        self._on_acked()
