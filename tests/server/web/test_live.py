"""The tick: one poll for all, a stream that ends, a hidden change that is told."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.exc import OperationalError

from wavegate_server.web.live import Ticker


class Revisions:
    def __init__(self) -> None:
        self.value = 7
        self.reads = 0
        self.broken = False

    def __call__(self) -> int:
        self.reads += 1
        if self.broken:
            raise OperationalError("select", {}, Exception("gone"))
        return self.value


async def following(ticker: Ticker, for_s: float = 5.0) -> AsyncIterator[int]:
    async for revision in ticker.listen(for_s=for_s):
        yield revision


def test_a_listener_gets_the_present_then_each_change() -> None:
    async def story() -> list[int]:
        revisions = Revisions()
        stream = following(Ticker(revisions, poll_s=0.01, beat_s=60))
        first = await anext(stream)
        revisions.value = 8
        second = await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]  # an async generator
        return [first, second]

    assert asyncio.run(story()) == [7, 8]


def test_without_a_change_there_is_still_a_beat() -> None:
    async def story() -> list[int]:
        return [r async for r in Ticker(Revisions(), poll_s=0.01, beat_s=0.02).listen(for_s=0.3)]

    told = asyncio.run(story())
    assert len(told) >= 3
    assert set(told) == {7}


def test_the_stream_ends_so_that_the_browser_is_checked_anew() -> None:
    async def story() -> list[int]:
        return [r async for r in Ticker(Revisions(), poll_s=0.01, beat_s=60).listen(for_s=0.05)]

    assert asyncio.run(story()) == [7]


def test_many_tabs_share_one_poll() -> None:
    async def story() -> tuple[int, int]:
        revisions = Revisions()
        ticker = Ticker(revisions, poll_s=0.05, beat_s=60)
        tabs = [asyncio.create_task(_count(ticker)) for _ in range(20)]
        await asyncio.gather(*tabs)
        return revisions.reads, len(tabs)

    reads, tabs = asyncio.run(story())
    assert reads < 2 * tabs  # one first read per tab, then one per poll for all; a poll per tab would be 6 each


async def _count(ticker: Ticker) -> None:
    async for _ in ticker.listen(for_s=0.3):
        pass


def test_a_slow_tab_gets_the_newest_only() -> None:
    async def story() -> int:
        revisions = Revisions()
        stream = following(Ticker(revisions, poll_s=0.005, beat_s=60))
        await anext(stream)
        for value in range(8, 12):
            revisions.value = value
            seen = revisions.reads
            while revisions.reads < seen + 2:
                await asyncio.sleep(0)
        newest = await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]  # an async generator
        return newest

    assert asyncio.run(story()) == 11


def test_a_database_that_hiccups_does_not_end_the_ticks(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> int:
        revisions = Revisions()
        stream = following(Ticker(revisions, poll_s=0.005, beat_s=60))
        await anext(stream)
        revisions.broken = True
        seen = revisions.reads
        while revisions.reads < seen + 2:
            await asyncio.sleep(0)
        revisions.broken, revisions.value = False, 9
        return await anext(stream)

    assert asyncio.run(story()) == 9
    assert "tick_failed" in caplog.text
