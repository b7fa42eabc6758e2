"""Which devices may speak, and with which key: the registry, cached for a second.

A revocation therefore takes effect on everything the server receives within that second, whatever the broker still lets in.
"""

import threading
import time
from collections.abc import Callable, Mapping

from sqlalchemy import Engine

from wavegate_server.adapters.store.telemetry import KnownDevice, known_devices
from wavegate_shared.dsse import Key, key_from_pem
from wavegate_shared.errors import TrustError

__all__ = ["MAX_AGE_S", "DeviceCache"]

MAX_AGE_S = 1.0
RECHECK_S = 0.2
"""For a device nobody knows: it may have been enrolled just now."""


class DeviceCache:
    """The registry as of at most `MAX_AGE_S` ago; any thread.

    Args:
        engine: the database.
        on_revoked: told all revoked devices (id -> certificate serial) at the first reading and whenever the set changes.
    """

    def __init__(self, engine: Engine, on_revoked: Callable[[Mapping[str, str]], None] = lambda _revoked: None) -> None:
        self._engine = engine
        self._on_revoked = on_revoked
        self._devices: dict[str, KnownDevice] = {}
        self._keys: dict[str, tuple[tuple[str, ...], list[Key]]] = {}
        self._told: Mapping[str, str] | None = None
        self._read_at = -MAX_AGE_S
        self._lock = threading.Lock()

    def active(self, device: str) -> KnownDevice | None:
        """The device when it is enrolled and not revoked. A device nobody knows makes the cache look again at once."""
        self.refresh()
        known = self._devices.get(device)
        if known is None or known.state == "pending":
            self.refresh(RECHECK_S)
            known = self._devices.get(device)
        return known if known is not None and known.state == "active" else None

    def refresh(self, age_s: float = MAX_AGE_S) -> None:
        """Read the registry when the cache is older than that; tell about revocations."""
        with self._lock:
            if time.monotonic() - self._read_at < age_s:
                return
            with self._engine.connect() as connection, connection.begin():
                self._devices = known_devices(connection)
            self._read_at = time.monotonic()
            revoked = {each.id: each.certificate_serial for each in self._devices.values() if each.state == "revoked"}
            if revoked == self._told:
                return
            self._told = revoked
        self._on_revoked(revoked)

    def repeat_revoked(self) -> None:
        """Tell about revocations again at the next refresh: the last telling failed."""
        self._told = None

    def keys(self, device: KnownDevice) -> list[Key]:
        """The keys the device may sign reports with: its own, and while a certificate is renewed the one before and the next."""
        cached = self._keys.get(device.id)
        if cached is None or cached[0] != device.public_keys:
            try:
                cached = (device.public_keys, [key_from_pem(pem.encode()) for pem in device.public_keys])
            except ValueError as error:
                raise TrustError("signature_invalid", "the device has no public key") from error
            if not cached[1]:
                raise TrustError("signature_invalid", "the device has no public key")
            self._keys[device.id] = cached
        return cached[1]
