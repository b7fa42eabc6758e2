"""`python -m wavegate_server.web.vendor`: copy the two JavaScript libraries from `node_modules` to where pages find them.

`npm ci` has checked them against the lock's digests; they are not committed. The copy lands in `static/vendor/`, which git
ignores and the server's wheel contains. A repeated call changes nothing.
"""

import shutil
import sys
from pathlib import Path

from wavegate_shared.errors import UsageError

__all__ = ["FILES", "VENDOR_DIR", "missing", "vendor"]

VENDOR_DIR = Path(__file__).parent / "static" / "vendor"
FILES: dict[str, str] = {
    "htmx.min.js": "htmx.org/dist/htmx.min.js",
    "htmx.LICENSE": "htmx.org/LICENSE",
    "uPlot.iife.min.js": "uplot/dist/uPlot.iife.min.js",
    "uPlot.min.css": "uplot/dist/uPlot.min.css",
    "uPlot.LICENSE": "uplot/LICENSE",
}
"""Name in `static/vendor/` -> path in `node_modules`."""


def missing() -> list[str]:
    """Which files are not there; pages work without them, but neither update by themselves nor draw charts."""
    return [name for name in FILES if not (VENDOR_DIR / name).is_file()]


def vendor(node_modules: Path, into: Path = VENDOR_DIR) -> list[Path]:
    """Copy every file of `FILES`.

    Raises:
        UsageError: `setup`, when npm has not installed them.
    """
    absent = [path for path in FILES.values() if not (node_modules / path).is_file()]
    if absent:
        raise UsageError("setup", f"{node_modules / absent[0]} is missing: run `npm ci` in the repository first")
    into.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(node_modules / path, into / name)) for name, path in FILES.items()]


def main(arguments: list[str]) -> int:
    """Vendor from the directory named first, default `node_modules` here; exit code 1 when npm has not run."""
    try:
        copied = vendor(Path(arguments[0]) if arguments else Path("node_modules"))
    except UsageError as error:
        sys.stderr.write(f"{error.detail}\n")
        return 1
    sys.stdout.write(f"{len(copied)} files in {VENDOR_DIR}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
