"""`wavegate doctor`: what is wrong with this installation, or will be soon.

Every check looks and changes nothing; a broken part is a finding, never an exception. Findings say what is, and what to do.
Not here: the command and how findings are printed.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from wavegate_server.adapters.broker.mosquitto import find_mosquitto
from wavegate_server.adapters.trust.authority import Authority
from wavegate_server.adapters.trust.image_repository import ImageRepository
from wavegate_server.adapters.trust.keystore import ROOT_ROLES, KeyPlace, KeyStore
from wavegate_server.config import Settings
from wavegate_server.web import vendor
from wavegate_shared.errors import WavegateError

__all__ = ["Finding", "Level", "examine"]

ONLINE_ROLES = ("snapshot", "timestamp", "director", "time")
"""Keys the running server needs on its machine; every other key may lie elsewhere."""
_WARN_BEFORE = {
    "root": timedelta(days=60),
    "targets": timedelta(days=30),
    "snapshot": timedelta(days=2),
    "timestamp": timedelta(hours=24),
    "crl": timedelta(days=7),
    "ca": timedelta(days=365),
}
_WARN_DEFAULT = timedelta(days=21)


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. Attributes: check (short name), level, sentence (what is), advice (what to do; may be empty)."""

    check: str
    level: Level
    sentence: str
    advice: str = ""


Check = Callable[[Settings, datetime], Iterable[Finding]]


def examine(settings: Settings, now: datetime) -> list[Finding]:
    """Every check, in a fixed order."""
    findings: list[Finding] = []
    for check in (_data_directory, _secret_files, _keys, _metadata, _certificates, _broker, _assets):
        try:
            findings.extend(check(settings, now))
        except (WavegateError, OSError) as error:
            name = check.__name__.strip("_")
            findings.append(Finding(name, Level.ERROR, str(error), "Run `wavegate serve` once, or restore a backup."))
    return findings


def _data_directory(settings: Settings, now: datetime) -> Iterator[Finding]:
    place = settings.data_dir
    if not place.is_dir():
        yield Finding(
            "data", Level.ERROR, f"{place} does not exist", "Run `wavegate serve` or `wavegate keys init` once."
        )
        return
    mode = stat.S_IMODE(place.stat().st_mode)
    if mode & 0o077:
        advice = f"chmod 700 {place}"
        yield Finding("data", Level.WARNING, f"{place} is open to other users of this machine ({mode:o})", advice)
    elif not os.access(place, os.W_OK):
        yield Finding("data", Level.ERROR, f"{place} cannot be written", "Run as the user who owns it.")
    else:
        yield Finding("data", Level.OK, f"{place} is there and private")


def _secret_files(settings: Settings, now: datetime) -> Iterator[Finding]:
    secrets = [
        *KeyStore(settings.keys_dir).key_files(),
        *Authority(settings.ca_dir).key_files(),
        settings.admin_token_file,
    ]
    found = [path for path in secrets if path.is_file()]
    open_ones = [path for path in found if stat.S_IMODE(path.stat().st_mode) & 0o077]
    for path in open_ones:
        yield Finding(
            "secrets", Level.ERROR, f"{path} can be read by other users", f"chmod 600 {path}, then rotate it."
        )
    if found and not open_ones:
        yield Finding("secrets", Level.OK, f"{len(found)} secret files are readable by their owner only")


def _keys(settings: Settings, now: datetime) -> Iterator[Finding]:
    places = {status.role: status.place for status in KeyStore(settings.keys_dir).status()}
    if not places:
        yield Finding("keys", Level.ERROR, "there are no signing keys", "Run `wavegate keys init`.")
        return
    online = [role for role, place in places.items() if place is KeyPlace.ONLINE]
    for role in ONLINE_ROLES:
        if places.get(role, KeyPlace.OFFLINE) is KeyPlace.OFFLINE:
            yield Finding("keys", Level.ERROR, f"the {role} key is not here; the server needs it", "Bring it back.")
    exposed = [role for role in online if role not in ONLINE_ROLES]
    if exposed:
        yield Finding("keys", Level.WARNING, _exposure(exposed), "Move them: `wavegate keys move ROLE DIRECTORY`.")
    else:
        yield Finding("keys", Level.OK, f"online on this machine: {', '.join(online)}; all others are elsewhere")


def _exposure(roles: list[str]) -> str:
    roots = len([role for role in roles if role in ROOT_ROLES])
    worst = "; with two root keys here, who takes this machine takes the fleet" if roots >= 2 else ""
    return f"quick start: keys that should be offline are on this machine: {', '.join(roles)}{worst}"


def _metadata(settings: Settings, now: datetime) -> Iterator[Finding]:
    repository = ImageRepository(settings.tuf_dir, KeyStore(settings.keys_dir))
    if not repository.store.ready:
        yield Finding("metadata", Level.ERROR, "there is no signed release list", "Run `wavegate keys init`.")
        return
    advice = {
        "timestamp": "`wavegate serve` signs it while it runs.",
        "snapshot": "`wavegate serve` signs it while it runs.",
        "root": "`wavegate keys resign root`.",
    }
    ends = repository.expiries()
    yield from _expiry("metadata", ends, now, lambda role: advice.get(role, f"`wavegate keys resign {role}`."))


def _certificates(settings: Settings, now: datetime) -> Iterator[Finding]:
    authority = Authority(settings.ca_dir)
    if not authority.ready:
        yield Finding("certificates", Level.ERROR, "there is no certificate authority", "Run `wavegate serve` once.")
        return
    authority.ca_sha256()  # the key belongs to the certificate
    renew = (
        "`wavegate serve` renews it while it runs; the authority itself (ca) has to be replaced, see docs/security.md."
    )
    yield from _expiry("certificates", authority.expiries(), now, lambda _: renew)


def _expiry(check: str, ends: dict[str, datetime], now: datetime, advice: Callable[[str], str]) -> Iterator[Finding]:
    """Findings for what has ended or will soon; one good one when there is nothing to say."""
    bad = False
    for name, end in ends.items():
        left = end - now
        if left <= timedelta(0):
            yield Finding(check, Level.ERROR, f"{name} has expired ({end:%Y-%m-%d %H:%M} UTC)", advice(name))
        elif left < _WARN_BEFORE.get(name, _WARN_DEFAULT):
            yield Finding(check, Level.WARNING, f"{name} expires in {_span(left)}", advice(name))
        else:
            continue
        bad = True
    if not bad and ends:
        first = min(ends, key=lambda name: ends[name])
        yield Finding(check, Level.OK, f"{len(ends)} are valid; {first} ends first, in {_span(ends[first] - now)}")


def _span(left: timedelta) -> str:
    return f"{left.days} days" if left.days >= 2 else f"{left.total_seconds() / 3600:.0f} hours"


def _broker(settings: Settings, now: datetime) -> Iterator[Finding]:
    found: Path | None = find_mosquitto()
    if settings.broker == "external":
        yield Finding("broker", Level.OK, f"external broker at {settings.broker_host}:{settings.broker_port}")
    elif settings.broker == "embedded" or (settings.broker == "auto" and found is None):
        advice = "" if settings.broker == "embedded" else "Install mosquitto for more than a few tens of devices."
        yield Finding("broker", Level.OK, "the embedded broker is used", advice)
    elif found is None:
        yield Finding(
            "broker", Level.ERROR, "mosquitto is asked for and not installed", "Install it, or unset WAVEGATE_BROKER."
        )
    else:
        yield Finding("broker", Level.OK, f"mosquitto is used: {found}")


def _assets(settings: Settings, now: datetime) -> Iterator[Finding]:
    absent = vendor.missing()
    if absent:
        yield Finding("dashboard", Level.WARNING, f"the dashboard lacks {', '.join(absent)}", vendor.ADVICE)
    else:
        yield Finding("dashboard", Level.OK, "the dashboard's libraries are there")
