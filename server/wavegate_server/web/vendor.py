"""The two JavaScript libraries of the dashboard: which files they are, and which of them are missing.

They are not committed. The build hook `server/hatch_build.py` fetches them by npm into `static/vendor/` whenever the server
is installed, from a checkout or as a wheel; it reads `FILES` from this module, which therefore imports nothing of Wavegate.
"""

from pathlib import Path

__all__ = ["ADVICE", "FILES", "VENDOR_DIR", "missing"]

VENDOR_DIR = Path(__file__).parent / "static" / "vendor"
FILES: dict[str, str] = {
    "htmx.min.js": "htmx.org/dist/htmx.min.js",
    "htmx.LICENSE": "htmx.org/LICENSE",
    "uPlot.iife.min.js": "uplot/dist/uPlot.iife.min.js",
    "uPlot.min.css": "uplot/dist/uPlot.min.css",
    "uPlot.LICENSE": "uplot/LICENSE",
}
"""Name in `static/vendor/` -> path in `node_modules`."""

ADVICE = (
    "Where npm's registry can be reached, install again: `pip install ./server` in a clone of the repository "
    "(developers: `.venv/bin/pip install --editable .`)."
)
"""What to do when files are missing."""


def missing() -> list[str]:
    """Names of the files that are not there; without them pages neither update by themselves nor draw charts."""
    return [name for name in FILES if not (VENDOR_DIR / name).is_file()]
