"""The tick: one event stream per page that carries nothing but a revision number; the page then asks for its own part.

One loop polls the revision row once a second for all tabs and sleeps while nobody listens. A tick comes with every new
revision, and at least every `BEAT_S` so that "12 s ago" moves on. A stream ends after `STREAM_S`: browsers come back by
themselves, and are checked anew. Any replica can answer any tab.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from sqlalchemy.exc import SQLAlchemyError

__all__ = ["BEAT_S", "POLL_S", "STREAM_S", "Ticker", "add_events"]

log = logging.getLogger(__name__)

POLL_S = 1.0
BEAT_S = 10.0
STREAM_S = 300.0
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no", "x-content-type-options": "nosniff"}


class Ticker:
    """Tells every listener of new revisions. `read` is called in a thread, once per poll, however many listen."""

    def __init__(self, read: Callable[[], int], *, poll_s: float = POLL_S, beat_s: float = BEAT_S) -> None:
        self._read = read
        self._poll_s = poll_s
        self._beat_s = beat_s
        self._listeners: set[asyncio.Queue[int]] = set()
        self._task: asyncio.Task[None] | None = None

    async def listen(self, *, for_s: float = STREAM_S) -> AsyncIterator[int]:
        """Revisions: the present one at once, then each change or beat."""
        queue: asyncio.Queue[int] = asyncio.Queue(maxsize=1)
        self._listeners.add(queue)
        end = time.monotonic() + for_s
        try:
            revision = await asyncio.to_thread(self._read)
            self._start(revision)
            yield revision
            while (left := end - time.monotonic()) > 0:
                try:
                    yield await asyncio.wait_for(queue.get(), left)
                except TimeoutError:
                    return
        finally:
            self._listeners.discard(queue)

    def _start(self, revision: int) -> None:
        """Poll, unless the loop of this event loop already does."""
        task = self._task
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            self._task = asyncio.create_task(self._poll(revision))

    async def _poll(self, known: int) -> None:
        told = time.monotonic()
        while self._listeners:
            await asyncio.sleep(self._poll_s)
            try:
                revision = await asyncio.to_thread(self._read)
            except SQLAlchemyError as error:
                log.warning("tick_failed error=%s", type(error).__name__)
                continue
            if revision != known or time.monotonic() - told >= self._beat_s:
                known, told = revision, time.monotonic()
                self._tell(revision)

    def _tell(self, revision: int) -> None:
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()  # a slow tab only needs the newest
            queue.put_nowait(revision)


def add_events(router: APIRouter, ticker: Ticker, check: Callable[[Request], object]) -> None:
    """`GET /events`, for whoever `check` lets in."""

    @router.get("/events")
    async def events(request: Request) -> StreamingResponse:
        await asyncio.to_thread(check, request)
        return StreamingResponse(_stream(ticker), media_type="text/event-stream", headers=_HEADERS)


async def _stream(ticker: Ticker) -> AsyncIterator[str]:
    yield "retry: 2000\n\n"
    async for revision in ticker.listen():
        yield f"event: tick\ndata: {revision}\n\n"
