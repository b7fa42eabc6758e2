"""Requests above their size are refused, whether they say so or not."""

import asyncio
import io
from collections.abc import Iterator

import pytest
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from tests.support.api_server import Api
from wavegate_server.api.limits import BodyLimit


def test_an_announced_and_a_streamed_excess_are_both_refused(api: Api) -> None:
    def pieces() -> Iterator[bytes]:
        yield from [b"x" * 65536] * 32

    for content in (b"x" * (2 << 20), pieces()):
        headers = {"Content-Type": "application/json"}
        answer = api.client.post("/api/v1/devices", content=content, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_an_upload_has_a_limit_of_its_own(api: Api) -> None:
    over = (api.context.settings.upload_limit_mb << 20) + 1
    answer = api.client.post("/api/v1/models/import", files={"bundle": ("b.zip", io.BytesIO(b"x" * over))})
    assert answer.status_code == 413
    assert not list((api.context.settings.data_dir / "uploads").glob("*"))


def test_an_announced_excess_is_refused_before_a_byte_is_read() -> None:
    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    async def receive() -> Message:
        raise AssertionError("it was read")

    async def send(message: Message) -> None:
        raise AssertionError("it was answered")

    scope = {"type": "http", "path": "/", "headers": [(b"content-length", b"11")]}
    with pytest.raises(HTTPException, match="larger than 10 bytes"):
        asyncio.run(BodyLimit(endpoint, lambda path: 10)(scope, receive, send))
