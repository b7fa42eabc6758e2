"""How large a request may be: checked against its Content-Length at once, and against what really arrives."""

from collections.abc import Callable

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["BodyLimit"]


class BodyLimit:
    """Refuses a body above the limit of its address with 413, when the endpoint begins or goes on to read it.

    Args:
        app: what it guards.
        limit: address -> largest body in bytes.
    """

    def __init__(self, app: ASGIApp, limit: Callable[[str], int]) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request with a counting `receive`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit(scope["path"])
        announced = dict(scope["headers"]).get(b"content-length", b"")
        read = int(announced) if announced.isdigit() and int(announced) > limit else 0

        async def counted() -> Message:
            nonlocal read
            if read > limit:
                raise _too_large(limit)
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                raise _too_large(limit)
            return message

        await self._app(scope, counted, send)


def _too_large(limit: int) -> HTTPException:
    # an HTTPException, because FastAPI turns any other error while it reads a body into "could not parse"
    return HTTPException(413, f"the request is larger than {limit:,} bytes")
