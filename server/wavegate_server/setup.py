"""First start: everything below the data directory that trust needs, made once. (signatures; body follows)"""

from dataclasses import dataclass
from datetime import datetime

from wavegate_server.adapters.authority import Authority
from wavegate_server.adapters.director import Director
from wavegate_server.adapters.keystore import KeyStore
from wavegate_server.adapters.tuf_repo import TufRepo
from wavegate_server.config import Settings

__all__ = ["Trust", "initialise", "open_trust"]


@dataclass(frozen=True, slots=True)
class Trust:
    """The server's trust adapters, opened."""

    keystore: KeyStore
    tuf_repo: TufRepo
    director: Director
    authority: Authority


def initialise(settings: Settings, now: datetime) -> None:
    """Data directory (0700), keys, TUF repository, authority and service certificates. A second call changes nothing."""
    raise NotImplementedError


def open_trust(settings: Settings) -> Trust:
    """The adapters over what `initialise` made. UsageError `setup` or `key_missing`."""
    raise NotImplementedError
