"""Trusted time: never backwards, never past what was proved, and never stuck."""

from datetime import UTC, datetime, timedelta

import pytest

from wavegate_agent.core.trusted_time import MAX_ROUND_TRIP_S, TrustedTime
from wavegate_shared.errors import TrustError

T0 = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_a_right_clock_is_used() -> None:
    assert TrustedTime(T0, 0.0).now(T0 + HOUR, 10.0) == T0 + HOUR


def test_a_clock_behind_the_floor_is_suspect_and_the_floor_moves_on() -> None:
    time = TrustedTime(T0, 100.0)
    old = T0 - timedelta(days=3650)
    assert time.now(old, 160.0) == T0 + timedelta(seconds=60)
    assert time.suspect(old, 160.0)
    assert not time.suspect(T0 + HOUR, 160.0)


def test_a_clock_a_little_behind_is_not_suspect() -> None:
    assert not TrustedTime(T0, 0.0).suspect(T0 - timedelta(seconds=30), 0.0)


def test_a_signed_document_raises_the_floor_but_not_past_its_expiry() -> None:
    time = TrustedTime(T0, 0.0).seen(T0 + HOUR, T0 + timedelta(days=7), 5.0)
    assert time.floor == T0 + HOUR
    stolen = TrustedTime(T0, 0.0).seen(datetime.max.replace(tzinfo=UTC), T0 + timedelta(days=7), 5.0)
    assert stolen.floor == T0 + timedelta(days=7)


def test_an_older_document_does_not_lower_it() -> None:
    time = TrustedTime(T0, 0.0)
    assert time.seen(T0 - HOUR, T0 + HOUR, 5.0) is time


def test_an_answer_takes_the_place_of_a_clock_far_ahead() -> None:
    """Ten years ahead everything seems expired; the server's answer puts that right without moving the floor."""
    ahead = T0 + timedelta(days=3650)
    time = TrustedTime(T0, 0.0).answer(T0 + HOUR, 10.0, 11.0)
    assert time.now(ahead, 21.0) == T0 + HOUR + timedelta(seconds=10)
    assert time.floor == T0


def test_a_late_or_too_old_answer_is_refused() -> None:
    time = TrustedTime(T0, 0.0)
    with pytest.raises(TrustError, match="clock_untrusted"):
        time.answer(T0 + HOUR, 0.0, MAX_ROUND_TRIP_S + 1)
    with pytest.raises(TrustError, match="clock_untrusted"):
        time.answer(T0 - HOUR, 0.0, 1.0)


def test_an_answer_ends_the_suspicion() -> None:
    old = T0 - HOUR
    assert not TrustedTime(T0, 0.0).answer(T0 + HOUR, 0.0, 1.0).suspect(old, 1.0)
