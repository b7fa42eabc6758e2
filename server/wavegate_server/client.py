"""A Python client of the REST API: one call a method, pages joined, problems raised as `Refused`.

Without typer and without settings: whoever uses it brings the connection. The command line's is `cli.client`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO
from urllib.parse import quote

import httpx

from wavegate_server.core.advice import Refused
from wavegate_shared.errors import CODES, TransferError, UsageError

__all__ = ["Client", "at"]

_IMPORT_TIMEOUT_S = 1800.0
"""The server validates a bundle before it answers."""


class Client:
    """Calls below `/api/v1`; an answer that is no success raises `Refused` with the server's problem."""

    def __init__(self, http: httpx.Client, *, source: str = "") -> None:
        self._http, self._source = http, source

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, **params: Any) -> dict[str, Any]:
        """GET one JSON object."""
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
        """POST a body; the created object."""
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
            raise _unreachable(self._http, error, self._source) from error
        if not answer.is_success:
            raise Refused(_problem(answer))
        return answer.json(), answer.headers.get("etag", "")


def at(*parts: object) -> str:
    """The path of these parts; whatever an operator typed stays one part."""
    return "".join(f"/{quote(str(part), safe='')}" for part in parts)


def _unreachable(http: httpx.Client, error: httpx.HTTPError, source: str) -> Exception:
    where = str(http.base_url).rstrip("/")
    if source:
        where += f" (the address in {source})"
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
