"""Static files, held in memory: named by content, compressed once, cached by browsers for ever.

A page asks for `/static/<name>?v=<digest>`; a new release has other digests, so nothing has to expire.
"""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request, Response

__all__ = ["Assets", "add_assets", "load_assets"]

_STATIC = Path(__file__).parent / "static"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    packed: bytes
    kind: str
    digest: str


@dataclass(frozen=True, slots=True)
class Assets:
    """The files by name, as `app.css` or `vendor/htmx.min.js`."""

    files: dict[str, _File]

    def url(self, name: str) -> str:
        """Where a page finds a file; a file that is not there gets a URL that answers 404."""
        file = self.files.get(name)
        return f"/static/{name}" + (f"?v={file.digest}" if file else "")


def load_assets(directory: Path = _STATIC) -> Assets:
    """Read every file below `directory` that browsers may ask for."""
    files: dict[str, _File] = {}
    for path in sorted(directory.rglob("*")):
        kind = _TYPES.get(path.suffix)
        if path.is_file() and kind:
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()[:12]
            packed = gzip.compress(content, 9, mtime=0)
            files[path.relative_to(directory).as_posix()] = _File(content, packed, kind, digest)
    return Assets(files)


def add_assets(router: APIRouter, assets: Assets) -> None:
    """Serve them, to everybody: they hold no data."""

    @router.get("/static/{name:path}")
    def static(request: Request, name: str) -> Response:
        file = assets.files.get(name)
        if file is None:
            raise HTTPException(404)
        headers = {
            "cache-control": _FOR_EVER if request.query_params.get("v") == file.digest else "no-cache",
            "etag": f'"{file.digest}"',
            "vary": "accept-encoding",
            "x-content-type-options": "nosniff",
        }
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(file.packed, headers={**headers, "content-encoding": "gzip"}, media_type=file.kind)
        return Response(file.content, headers=headers, media_type=file.kind)
