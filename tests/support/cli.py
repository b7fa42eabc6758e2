"""The `wavegate` command against a real HTTPS server on loopback."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from wavegate_server.adapters.trust.authority import Authority
from wavegate_server.cli.main import run

__all__ = ["Cli", "Listener", "Result", "served"]


@dataclass(frozen=True)
class Result:
    """What a command did. Attributes: code (exit code), out, err."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Cli:
    """Calls the command in this process, as its entry point does."""

    capture: pytest.CaptureFixture[str]
    url: str

    def __call__(self, *arguments: str | Path | int, code: int = 0) -> Result:
        """Run it and expect an exit code."""
        self.capture.readouterr()
        got = run([str(argument) for argument in arguments])
        out, err = self.capture.readouterr()
        assert got == code, f"exit code {got}\n{out}\n{err}"
        return Result(got, out, err)


class Listener:
    """An application that hands each request to another one, which a test puts in: one HTTPS listener serves many tests."""

    def __init__(self) -> None:
        self.app: ASGIApp | None = None
        self.url = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the test's application."""
        assert self.app is not None
        await self.app(scope, receive, send)


@contextmanager
def served(app: ASGIApp, authority: Authority) -> Iterator[str]:
    """The application behind HTTPS with the authority's `server` certificate; gives its address."""
    files = authority.service("server")
    config = uvicorn.Config(
        app, ssl_certfile=files.certificate, ssl_keyfile=str(files.key), log_config=None, ws="none", lifespan="off"
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_run(server, listener), daemon=True)
        thread.start()
        yield f"https://localhost:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)
    assert not thread.is_alive()


def _run(server: uvicorn.Server, listener: socket.socket) -> Callable[[], None]:
    return lambda: server.run(sockets=[listener])
