"""First start: everything below the data directory that trust needs, made once and kept.

Not here: the database (migrations), the broker's files, the first administrator's token.
"""

import logging
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine

from wavegate_server.adapters.database.connection import read
from wavegate_server.adapters.files.durable import locked, make_directory
from wavegate_server.adapters.trust.authority import Authority
from wavegate_server.adapters.trust.director import Director
from wavegate_server.adapters.trust.enrolment import revoked_serials
from wavegate_server.adapters.trust.image_repository import ImageRepository
from wavegate_server.adapters.trust.keystore import KeyStore
from wavegate_server.config import Settings
from wavegate_shared.errors import UsageError

__all__ = ["Trust", "initialise", "maintain", "open_trust"]

_log = logging.getLogger(__name__)
_UNSPECIFIED = ("", "0.0.0.0", "::")  # noqa: S104 - addresses to listen on, not names anyone connects to


@dataclass(frozen=True, slots=True)
class Trust:
    """The server's trust adapters, opened."""

    keystore: KeyStore
    tuf_repo: ImageRepository
    director: Director
    authority: Authority


def initialise(settings: Settings, now: datetime) -> None:
    """Data directory (0700), keys, TUF repository, authority and service certificates.

    A second call changes nothing, except that service certificates near their end or without a newly set name are renewed.
    Two processes may call it at once. After a crash in the middle the next call completes it.

    Raises:
        UsageError: `key_missing`, `setup`.
    """
    make_directory(settings.data_dir, mode=0o700)
    with locked(settings.data_dir / ".setup.lock"):
        keystore = KeyStore(settings.keys_dir)
        repository = ImageRepository(settings.tuf_dir, keystore)
        if not repository.store.ready:
            keystore.init()
            repository.init(now)
        _complete_rotation(repository, now)
        Authority(settings.ca_dir).init(now, _names(settings))


def open_trust(settings: Settings) -> Trust:
    """The adapters over what `initialise` made.

    Raises:
        UsageError: `setup` when it was never called, `key_missing` when the online keys are not on this machine.
    """
    keystore = KeyStore(settings.keys_dir)
    repository, authority = (
        ImageRepository(settings.tuf_dir, keystore),
        Authority(settings.ca_dir, device_days=settings.device_certificate_days),
    )
    if not repository.store.ready or not authority.ready:
        raise UsageError("setup", f"{settings.data_dir} is not set up; run `wavegate serve` or `wavegate keys init`")
    return Trust(keystore, repository, Director.from_keys(keystore), authority)


def maintain(trust: Trust, engine: Engine, now: datetime) -> list[str]:
    """Sign what is due: timestamp and snapshot (6-hourly), revocation list (daily). `serve` calls it every few minutes.

    Returns:
        What was signed, for the log; mostly nothing.

    Raises:
        UsageError: `key_missing`: then devices stop taking updates when the timestamp ends, at most two days later.
    """
    signed = []
    if trust.tuf_repo.resign_online(now):
        signed.append("timestamp")
    with read(engine) as session:
        serials = revoked_serials(session, now)
    if trust.authority.crl_due(now) or not set(serials) <= set(trust.authority.listed_serials()):
        trust.authority.crl(serials, now)  # also when a renewal ended certificates since
        signed.append("crl")
    return signed


def renew_services(trust: Trust, settings: Settings, now: datetime) -> tuple[str, ...]:
    """Make certificates of the server's own parts anew that end within 30 days; which these were."""
    return trust.authority.renew_services(now, _names(settings))


def _complete_rotation(repository: ImageRepository, now: datetime) -> None:
    """Finish a key's replacement that a crash cut short; without the offline keys this has to wait."""
    try:
        if repository.sync_keys(now):
            _log.warning("keys_synced what=targets reason=rotation_was_cut_short")
    except UsageError as error:
        _log.warning("keys_not_synced reason=%s", error)


def _names(settings: Settings) -> list[str]:
    wanted = (settings.public_name, settings.host, settings.broker_host)
    return [name for name in dict.fromkeys(wanted) if name not in _UNSPECIFIED]
