"""Who may speak, at most a second old."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.ingest import Keys, database, report
from tests.support.waiting import wait_until
from wavegate_server.adapters.database.connection import write
from wavegate_server.adapters.database.tables import Device
from wavegate_server.adapters.store.device_cache import DeviceCache
from wavegate_shared.dsse import open_signed
from wavegate_shared.errors import TrustError
from wavegate_shared.wire import REPORT_TYPE, Report


def test_only_enrolled_and_not_revoked_devices_may_speak(tmp_path: Path) -> None:
    cache = DeviceCache(database(tmp_path, {"dev-1": "active", "dev-2": "pending", "dev-3": "revoked"}))
    known = cache.active("dev-1")
    assert known is not None
    assert (known.hardware_class, known.site) == ("locker-v2", "harbour")
    assert [cache.active(each) for each in ("dev-2", "dev-3", "nobody")] == [None, None, None]


def test_a_revocation_is_seen_within_the_caches_age_and_told_once(tmp_path: Path) -> None:
    engine = database(tmp_path, {"dev-1": "active"})
    told: list[Mapping[str, str]] = []
    cache = DeviceCache(engine, told.append)
    assert cache.active("dev-1")
    with write(engine) as session:
        device = session.get(Device, "dev-1")
        assert device is not None
        device.state = "revoked"
        session.add(device)
    wait_until(lambda: cache.active("dev-1") is None, timeout_s=3.0)
    cache.refresh(0)
    assert told == [{}, {"dev-1": "serial-dev-1"}]
    cache.repeat_revoked()
    cache.refresh(0)
    assert told[2:] == [{"dev-1": "serial-dev-1"}]


def test_the_key_is_the_registrys(tmp_path: Path) -> None:
    keys = Keys()
    cache = DeviceCache(database(tmp_path, {"dev-1": "active"}, keys=keys))
    known = cache.active("dev-1")
    assert known is not None
    envelope = bytes(report(keys, "dev-1", 1).envelope)
    assert open_signed(envelope, Report, REPORT_TYPE, cache.keys(known)).device == "dev-1"
    assert cache.keys(known) is cache.keys(known)


def test_a_device_without_a_key_signs_nothing(tmp_path: Path) -> None:
    cache = DeviceCache(database(tmp_path, {"dev-1": "active"}))
    known = cache.active("dev-1")
    assert known is not None
    with pytest.raises(TrustError, match="signature_invalid"):
        cache.keys(known)
