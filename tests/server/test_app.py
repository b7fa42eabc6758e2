"""The server's own listener: what a client's kept connection gets."""

import asyncio
import socket
import ssl
from datetime import timedelta
from pathlib import Path

import pytest
import uvicorn
from cryptography import x509

from wavegate_server.adapters.clock import now
from wavegate_server.adapters.trust.authority import Authority
from wavegate_server.app import bind_listener, reload_certificate
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


def test_a_certificate_made_anew_is_served_without_a_restart(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    authority.init(now(), [])
    files = authority.service("server")
    config = uvicorn.Config("unused:app", ssl_certfile=str(files.certificate), ssl_keyfile=str(files.key))
    config.ssl = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # what `Config.load` makes of the two files
    reload_certificate(config)

    async def served() -> int:
        context = ssl.create_default_context(cafile=files.ca)
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=config.ssl)
        async with server, asyncio.timeout(20):
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=context)
            data = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.close()
            return x509.load_der_x509_certificate(data).serial_number

    before = asyncio.run(served())
    assert authority.renew_services(now() + timedelta(days=200), []) == ()
    assert "server" in authority.renew_services(now() + timedelta(days=370), [])
    authority.issue_service("server", ["localhost", "127.0.0.1"], now())  # one that is valid now
    assert asyncio.run(served()) == before
    reload_certificate(config)
    assert asyncio.run(served()) != before
