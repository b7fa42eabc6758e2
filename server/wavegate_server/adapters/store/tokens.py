"""Who may call: API tokens and browser sessions, checked against their hashes.

A token is `wgt_` + 32 random bytes; a browser session is a server-side row named by a random cookie. Only SHA-256 hashes are
stored: 256 random bits need no slow hash. A login key is a session row that can be exchanged once (the link that
`wavegate demo` prints). A session ends with the token it was opened with. Not here: which call needs which scope (`api/auth.py`).
"""

import hashlib
import os
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from sqlalchemy import Engine
from sqlmodel import Session, col, delete, select

from wavegate_server.adapters.database.connection import write
from wavegate_server.adapters.database.tables import ApiToken, BrowserSession
from wavegate_server.config import Settings
from wavegate_shared.errors import UsageError

__all__ = [
    "SCOPES",
    "SESSION_COOKIE",
    "SESSION_LIFE",
    "TOKEN_PREFIX",
    "Principal",
    "Role",
    "Scope",
    "check_session",
    "check_token",
    "create_login_key",
    "create_token",
    "end_session",
    "ensure_admin_token",
    "redeem_login_key",
    "revoke_token",
    "start_session",
]

TOKEN_PREFIX = "wgt_"  # noqa: S105 - a prefix, not a secret
SESSION_COOKIE = "__Host-wavegate"
"""The `__Host-` prefix makes browsers insist on HTTPS, path `/` and no Domain."""
SESSION_LIFE = timedelta(hours=12)
LOGIN_KEY_LIFE = timedelta(hours=1)
_ADMIN_NAME = "admin"


class Scope(StrEnum):
    """One kind of call a principal may make."""

    READ = "read"
    DEVICES = "devices"
    MODELS = "models"
    ROLLOUTS = "rollouts"
    TOKENS = "tokens"


class Role(StrEnum):
    """A named set of scopes."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    PUBLISHER = "publisher"
    ADMIN = "admin"


SCOPES: dict[Role, frozenset[Scope]] = {
    Role.VIEWER: frozenset({Scope.READ}),
    Role.OPERATOR: frozenset({Scope.READ, Scope.DEVICES, Scope.ROLLOUTS}),
    Role.PUBLISHER: frozenset({Scope.READ, Scope.MODELS}),
    Role.ADMIN: frozenset(Scope),
}
"""An operator moves devices, a publisher signs versions; nobody but an admin does both."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling.

    Attributes:
        name: the token's name, for the audit log.
        token_id: the API token behind it; None for a login key that no token stands behind.
        browser: whether a cookie carried it, so that unsafe methods need an Origin check.
    """

    name: str
    role: Role
    token_id: int | None
    browser: bool = False

    def may(self, scope: Scope) -> bool:
        """Whether the role holds `scope`."""
        return scope in SCOPES[self.role]


# --- API tokens -------------------------------------------------------------------------------------------------------


def create_token(session: Session, *, name: str, role: Role, now: datetime, life: timedelta | None = None) -> str:
    """A new token's text, which is shown once and never stored; without `life` it does not expire."""
    text = TOKEN_PREFIX + secrets.token_urlsafe(32)
    row = ApiToken(
        name=name,
        prefix=text[: len(TOKEN_PREFIX) + 6],
        token_hash=_digest(text),
        role=role.value,
        created_at=now,
        expires_at=None if life is None else now + life,
    )
    session.add(row)
    session.flush()
    return text


def check_token(session: Session, text: str, now: datetime) -> Principal | None:
    """The principal of a token, or None when it is unknown, expired or revoked."""
    if not text.startswith(TOKEN_PREFIX):
        return None
    row = session.exec(select(ApiToken).where(ApiToken.token_hash == _digest(text))).first()
    return None if row is None or not _alive(row, now) else Principal(row.name, Role(row.role), row.id)


def revoke_token(session: Session, token_id: int) -> ApiToken:
    """End a token and every session opened with it; idempotent. Raises UsageError `not_found`."""
    row = session.get(ApiToken, token_id)
    if row is None:
        raise UsageError("not_found", f"no token number {token_id}")
    row.revoked = True
    session.add(row)
    session.exec(delete(BrowserSession).where(col(BrowserSession.token_id) == token_id))
    session.flush()
    return row


def ensure_admin_token(engine: Engine, settings: Settings, now: datetime) -> Path:
    """The file (mode 0600) with an administrator's token that works; written anew when it is missing or no longer valid."""
    path = settings.admin_token_file
    with write(engine) as session:
        text = path.read_text().strip() if path.is_file() else ""
        principal = check_token(session, text, now)
        if principal is None or principal.role is not Role.ADMIN:
            _write_secret(path, create_token(session, name=_ADMIN_NAME, role=Role.ADMIN, now=now))
    return path


# --- browser sessions -------------------------------------------------------------------------------------------------


def start_session(session: Session, principal: Principal, now: datetime) -> str:
    """Sign a browser in: the value of its cookie. Expired rows are swept on the way."""
    session.exec(delete(BrowserSession).where(col(BrowserSession.expires_at) <= now))
    return _add(session, principal, now, SESSION_LIFE, one_time=False)


def check_session(session: Session, cookie: str, now: datetime) -> Principal | None:
    """The principal of a cookie, or None when the session is over or its token was revoked."""
    row = session.get(BrowserSession, _digest(cookie))
    if row is None or row.one_time or row.expires_at <= now or not _token_alive(session, row, now):
        return None
    return Principal(row.name, Role(row.role), row.token_id, browser=True)


def end_session(session: Session, cookie: str) -> None:
    """Sign a browser out; an unknown cookie is no error."""
    session.exec(delete(BrowserSession).where(col(BrowserSession.secret_hash) == _digest(cookie)))


def create_login_key(session: Session, principal: Principal, now: datetime) -> str:
    """A key for one `/login?key=...` link, good for an hour."""
    return _add(session, principal, now, LOGIN_KEY_LIFE, one_time=True)


def redeem_login_key(session: Session, key: str, now: datetime) -> str | None:
    """Exchange a login key for a session cookie, once: the second try, even at the same moment, gets None."""
    digest = _digest(key)
    unused = (col(BrowserSession.secret_hash) == digest) & col(BrowserSession.one_time).is_(True)
    row = session.exec(select(BrowserSession).where(unused)).first()
    if row is None or row.expires_at <= now or not _token_alive(session, row, now):
        return None
    if session.exec(delete(BrowserSession).where(unused)).rowcount != 1:
        return None
    return start_session(session, Principal(row.name, Role(row.role), row.token_id), now)


def _add(session: Session, principal: Principal, now: datetime, life: timedelta, *, one_time: bool) -> str:
    text = secrets.token_urlsafe(32)
    session.add(
        BrowserSession(
            secret_hash=_digest(text),
            one_time=one_time,
            token_id=principal.token_id,
            name=principal.name,
            role=principal.role.value,
            created_at=now,
            expires_at=now + life,
        )
    )
    session.flush()
    return text


def _alive(row: ApiToken, now: datetime) -> bool:
    return not row.revoked and (row.expires_at is None or row.expires_at > now)


def _token_alive(session: Session, row: BrowserSession, now: datetime) -> bool:
    if row.token_id is None:
        return True
    token = session.get(ApiToken, row.token_id)
    return token is not None and _alive(token, now)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _write_secret(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
