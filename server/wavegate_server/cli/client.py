"""The command line's connection to the server: its address, the token and the certificate authority.

Server: `--server`, WAVEGATE_SERVER, else what a running server wrote to serve.json in the data directory, else
https://localhost:8443. Authority: `--ca`, WAVEGATE_CA, else ca/ca.pem in the data
directory, else the system's. Token: WAVEGATE_TOKEN, `--token-file`, else admin.token in the data directory. A token is never
an argument: other users of the machine can read those.
"""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import typer

from wavegate_server.client import Client
from wavegate_server.config import Settings
from wavegate_shared.errors import UsageError

__all__ = ["DEFAULT_SERVER", "Connection", "connect"]

DEFAULT_SERVER = "https://localhost:8443"
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)


@dataclass(frozen=True, slots=True)
class Connection:
    """Where to, as given on the command line; None means: look at the environment and the data directory."""

    server: str | None = None
    ca: Path | None = None
    token_file: Path | None = None


class _Ready(msgspec.Struct):
    url: str


@contextmanager
def connect(context: typer.Context) -> Iterator[Client]:
    """A client for the connection of the root command, closed at the end."""
    connection = context.find_object(Connection) or Connection()
    settings = Settings()
    server, source = _server(connection, settings)
    headers = {"Authorization": f"Bearer {_token(connection, settings)}"}
    with httpx.Client(
        base_url=server.rstrip("/"),
        headers=headers,
        verify=_verify(connection, settings),
        timeout=_TIMEOUT,
        trust_env=False,
    ) as http:
        yield Client(http, source=source)


def _server(connection: Connection, settings: Settings) -> tuple[str, str]:
    """The server's address, and where it is written when no operator gave it; raises UsageError `invalid`."""
    given = connection.server or os.environ.get("WAVEGATE_SERVER")
    if given:
        if not given.startswith("https://"):
            raise UsageError(
                "invalid", f"the server's address {given!r} has no scheme: write https://{given.split('://')[-1]}"
            )
        return given, ""
    try:
        return msgspec.json.decode(settings.ready_file.read_bytes(), type=_Ready).url, str(settings.ready_file)
    except (OSError, msgspec.MsgspecError):
        return DEFAULT_SERVER, ""


def _token(connection: Connection, settings: Settings) -> str:
    if token := os.environ.get("WAVEGATE_TOKEN"):
        return token.strip()
    path = connection.token_file or settings.admin_token_file
    try:
        return path.read_text().strip()
    except OSError as error:
        raise UsageError("unauthenticated", f"no token: {path}: {error.strerror}") from error


def _verify(connection: Connection, settings: Settings) -> ssl.SSLContext:
    ours = settings.ca_dir / "ca.pem"
    given = connection.ca or (Path(text) if (text := os.environ.get("WAVEGATE_CA")) else None)
    path = given or (ours if ours.is_file() else None)
    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise UsageError("setup", f"no certificate authority in {path}: {error}") from error
