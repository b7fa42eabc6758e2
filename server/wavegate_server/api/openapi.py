"""The API's OpenAPI document as committed in `docs/openapi.json`: `python -m wavegate_server.api.openapi` writes it anew.

It depends on no server: the routes are enough. A test fails when the committed file differs, so a change of the API is seen.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from wavegate_server.api.app import create_api
from wavegate_server.api.context import Context
from wavegate_server.config import Settings

__all__ = ["document", "main", "text"]

_FILE = Path("docs") / "openapi.json"


def document() -> dict[str, Any]:
    """The OpenAPI document of the present code."""
    routes_only = cast(Context, SimpleNamespace(settings=Settings()))
    return create_api(routes_only).openapi()


def text() -> str:
    """The document as the file holds it."""
    return json.dumps(document(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> None:
    """Write `docs/openapi.json` below the current directory, which must be the repository's."""
    if not _FILE.parent.is_dir():
        sys.exit(f"no {_FILE.parent} directory here: run it in the repository's root")
    _FILE.write_text(text(), encoding="utf-8")
    print(f"wrote {_FILE}")


if __name__ == "__main__":
    main()
