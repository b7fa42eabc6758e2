"""Tokens and browser sessions: only hashes are kept, ends are ends, a login key works once."""

import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlmodel import select

from wavegate_server.adapters.database.connection import open_engine, read, sqlite_url, write
from wavegate_server.adapters.database.tables import METADATA, ApiToken, BrowserSession
from wavegate_server.adapters.store.tokens import (
    LOGIN_KEY_LIFE,
    SCOPES,
    SESSION_LIFE,
    TOKEN_PREFIX,
    Principal,
    Role,
    Scope,
    check_session,
    check_token,
    create_login_key,
    create_token,
    end_session,
    ensure_admin_token,
    redeem_login_key,
    revoke_token,
    start_session,
)
from wavegate_server.config import Settings
from wavegate_shared.errors import UsageError

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SOON = NOW + timedelta(minutes=1)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = open_engine(sqlite_url(tmp_path / "db"))
    METADATA.create_all(opened)
    yield opened
    opened.dispose()


def new_token(engine: Engine, role: Role = Role.ADMIN, life: timedelta | None = None) -> tuple[str, Principal]:
    with write(engine) as session:
        text = create_token(session, name="ci", role=role, now=NOW, life=life)
        principal = check_token(session, text, NOW)
    assert principal is not None
    return text, principal


def test_a_token_is_long_random_and_kept_only_as_a_hash(engine: Engine, tmp_path: Path) -> None:
    first, second = new_token(engine)[0], new_token(engine)[0]
    assert first != second
    assert first.startswith(TOKEN_PREFIX)
    assert len(first) >= len(TOKEN_PREFIX) + 43
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    assert first.encode() not in (tmp_path / "db").read_bytes()


def test_a_token_is_somebody_until_it_expires(engine: Engine) -> None:
    text, principal = new_token(engine, Role.OPERATOR, timedelta(minutes=1))
    assert (principal.name, principal.role, principal.browser) == ("ci", Role.OPERATOR, False)
    with read(engine) as session:
        assert check_token(session, text, SOON - timedelta(seconds=1)) is not None
        assert check_token(session, text, SOON) is None


@pytest.mark.parametrize("text", ["", "wgt_", "wgt_" + "A" * 43, "x", "wgt_\x00", "wgt_é"])
def test_a_text_that_is_no_token_is_nobody(engine: Engine, text: str) -> None:
    new_token(engine)
    with read(engine) as session:
        assert check_token(session, text, NOW) is None


def test_a_revoked_token_ends_with_its_sessions_and_login_keys(engine: Engine) -> None:
    text, principal = new_token(engine)
    assert principal.token_id is not None
    with write(engine) as session:
        cookie, key = start_session(session, principal, NOW), create_login_key(session, principal, NOW)
        assert check_session(session, cookie, NOW) is not None
        for _ in range(2):
            assert revoke_token(session, principal.token_id).revoked
        assert check_token(session, text, NOW) is None
        assert check_session(session, cookie, NOW) is None
        assert redeem_login_key(session, key, NOW) is None
        with pytest.raises(UsageError, match="no token number 99"):
            revoke_token(session, 99)


def test_a_session_ends_by_time_by_sign_out_and_with_an_expired_token(engine: Engine) -> None:
    _, principal = new_token(engine, life=timedelta(hours=1))
    with write(engine) as session:
        cookie = start_session(session, principal, NOW)
        assert check_session(session, cookie, NOW) == Principal("ci", Role.ADMIN, principal.token_id, browser=True)
        assert check_session(session, cookie, NOW + timedelta(hours=1)) is None  # its token expired
        end_session(session, cookie)
        end_session(session, "unknown")
        assert check_session(session, cookie, NOW) is None
        lasting = start_session(session, Principal("demo", Role.ADMIN, None), NOW)
        assert check_session(session, lasting, NOW + SESSION_LIFE - timedelta(seconds=1)) is not None
        assert check_session(session, lasting, NOW + SESSION_LIFE) is None


def test_expired_sessions_are_swept_at_the_next_sign_in(engine: Engine) -> None:
    _, principal = new_token(engine)
    with write(engine) as session:
        start_session(session, principal, NOW)
        start_session(session, principal, NOW + SESSION_LIFE)
        assert len(session.exec(select(BrowserSession)).all()) == 1


def test_a_login_key_is_no_cookie_works_once_and_not_for_ever(engine: Engine) -> None:
    _, principal = new_token(engine)
    with write(engine) as session:
        key, late = (create_login_key(session, principal, NOW) for _ in range(2))
        assert check_session(session, key, NOW) is None
        cookie = redeem_login_key(session, key, SOON)
        assert cookie is not None
        assert check_session(session, cookie, SOON) is not None
        assert redeem_login_key(session, key, SOON) is None
        assert redeem_login_key(session, cookie, SOON) is None
        assert redeem_login_key(session, late, NOW + LOGIN_KEY_LIFE) is None


def test_of_many_who_use_a_login_key_at_once_one_gets_in(engine: Engine) -> None:
    _, principal = new_token(engine)
    with write(engine) as session:
        key = create_login_key(session, principal, NOW)

    def redeem(_: int) -> str | None:
        with write(engine) as session:
            return redeem_login_key(session, key, NOW)

    with ThreadPoolExecutor(8) as pool:
        assert len([cookie for cookie in pool.map(redeem, range(8)) if cookie]) == 1


def test_the_admin_token_file_is_private_kept_and_replaced_when_it_no_longer_works(
    engine: Engine, tmp_path: Path
) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    path = ensure_admin_token(engine, settings, NOW)
    first = path.read_text().strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ensure_admin_token(engine, settings, NOW).read_text().strip() == first
    with write(engine) as session:
        row = session.exec(select(ApiToken)).one()
        revoke_token(session, row.id or 0)
    second = ensure_admin_token(engine, settings, NOW).read_text().strip()
    assert second != first
    with read(engine) as session:
        principal = check_token(session, second, NOW)
    assert principal is not None
    assert principal.role is Role.ADMIN
    path.unlink()
    assert ensure_admin_token(engine, settings, NOW).read_text().strip() not in (first, second)


def test_only_an_administrator_holds_every_scope() -> None:
    assert {role for role, scopes in SCOPES.items() if scopes == frozenset(Scope)} == {Role.ADMIN}
    assert all(Scope.READ in scopes for scopes in SCOPES.values())
    assert not SCOPES[Role.OPERATOR] & {Scope.MODELS, Scope.TOKENS}
    assert not SCOPES[Role.PUBLISHER] & {Scope.DEVICES, Scope.ROLLOUTS, Scope.TOKENS}
