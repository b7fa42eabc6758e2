"""The command line's client of the API: where the server is, which token and certificate authority to use, and its problems.

Server: `--server`, WAVEGATE_SERVER, else https://localhost:8443. Authority: `--ca`, WAVEGATE_CA, else ca/ca.pem in the data
directory, else the system's. Token: WAVEGATE_TOKEN, `--token-file`, else admin.token in the data directory. A token is never
an argument: other users of the machine can read those.
"""

import os
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import httpx
import typer

from wavegate_server.cli.output import Refused
from wavegate_server.config import Settings
from wavegate_shared.errors import CODES, TransferError, UsageError

__all__ = ["Client", "Connection", "at", "connect"]

DEFAULT_SERVER = "https://localhost:8443"
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_IMPORT_TIMEOUT_S = 1800.0
"""The server validates a bundle before it answers."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Where to, as given on the command line; None means: look at the environment and the data directory."""

    server: str | None = None
    ca: Path | None = None
    token_file: Path | None = None


class Client:
    """Calls below `/api/v1`; an answer that is no success raises `Refused` with the server's problem."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, **params: Any) -> dict[str, Any]:
        """One object."""
        return self._call("GET", path, params=_given(params))[0]

    def pages(self, path: str, **params: Any) -> list[dict[str, Any]]:
        """All items of a list, however many pages it has."""
        items: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = self.get(path, **params, limit=200, cursor=cursor)
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return items

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Make something."""
        return self._call("POST", path, json=body)[0]

    def change(self, method: str, path: str, read: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Change what `read` shows, for the state it is in now: reads the ETag and sends it as If-Match."""
        tag = self._call("GET", read)[1]
        return self._call(method, path, json=body, headers={"If-Match": tag})[0]

    def upload(self, path: str, name: str, file: BinaryIO, fields: Mapping[str, str]) -> dict[str, Any]:
        """Send a file as multipart form; it is read in pieces."""
        files = {"bundle": (name, file, "application/zip")}
        return self._call("POST", path, files=files, data=fields, timeout=_IMPORT_TIMEOUT_S)[0]

    def send(self, path: str, files: Sequence[tuple[str, str, BinaryIO]], fields: Mapping[str, str]) -> dict[str, Any]:
        """Send several files, each with its field and name, as one multipart form; they are read in pieces."""
        parts = [(field, (name, file, "application/zip")) for field, name, file in files]
        return self._call("POST", path, files=parts, data=fields, timeout=_IMPORT_TIMEOUT_S)[0]

    def _call(self, method: str, path: str, **options: Any) -> tuple[dict[str, Any], str]:
        try:
            answer = self._http.request(method, f"/api/v1{path}", **options)
        except httpx.HTTPError as error:
            raise _unreachable(self._http, error) from error
        if not answer.is_success:
            raise Refused(_problem(answer))
        return answer.json(), answer.headers.get("etag", "")


def at(*parts: object) -> str:
    """The path of these parts; whatever an operator typed stays one part."""
    return "".join(f"/{quote(str(part), safe='')}" for part in parts)


@contextmanager
def connect(context: typer.Context) -> Iterator[Client]:
    """A client for the connection of the root command, closed at the end."""
    connection = context.find_object(Connection) or Connection()
    settings = Settings()
    server = connection.server or os.environ.get("WAVEGATE_SERVER") or DEFAULT_SERVER
    headers = {"Authorization": f"Bearer {_token(connection, settings)}"}
    with httpx.Client(
        base_url=server.rstrip("/"),
        headers=headers,
        verify=_verify(connection, settings),
        timeout=_TIMEOUT,
        trust_env=False,
    ) as http:
        yield Client(http)


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


def _unreachable(http: httpx.Client, error: httpx.HTTPError) -> Exception:
    where = str(http.base_url).rstrip("/")
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        detail = f"the certificate of {where} is not signed by the authority this client knows; set WAVEGATE_CA to its ca.pem"
        return UsageError("setup", detail)
    if isinstance(error, httpx.TimeoutException):
        return TransferError("not_connected", f"{where} did not answer in time")
    return TransferError("not_connected", f"cannot reach {where}: {error}")


def _problem(answer: httpx.Response) -> dict[str, Any]:
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    if isinstance(problem, dict) and problem.get("code") in CODES:
        return problem
    detail = f"HTTP {answer.status_code}, and no Wavegate problem with it: is {answer.url.host} a Wavegate server?"
    return {"type": "about:blank", "title": "", "detail": detail, "code": "internal", "retry": False, "action": ""}


def _given(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None and value != []}
