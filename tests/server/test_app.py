"""The server's own listener: what a client's kept connection gets."""

import asyncio
import socket
from pathlib import Path

import pytest

from wavegate_server.app import bind_listener
from wavegate_server.config import Settings
from wavegate_shared.errors import UsageError


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_answers_do_not_wait_for_acknowledgements(tmp_path: Path, host: str) -> None:
    """Without TCP_NODELAY each answer on a kept connection takes 44 ms."""

    async def story() -> int:
        accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def on_client(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket")
            accepted.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listener = bind_listener(Settings(data_dir=tmp_path, host=host, port=0))
        async with await asyncio.start_server(on_client, sock=listener), asyncio.timeout(20):
            _, writer = await asyncio.open_connection(*listener.getsockname()[:2])
            writer.close()
            return await accepted

    assert asyncio.run(story()) == 1


def test_an_address_in_use_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{port}: .*set WAVEGATE_PORT"):
            bind_listener(Settings(data_dir=tmp_path, host="127.0.0.1", port=port))
