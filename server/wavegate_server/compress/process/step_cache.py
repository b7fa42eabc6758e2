"""Finished steps of compression jobs, by the hash of everything they depend on: a job that was killed goes on from here.

One folder a step, written beside and renamed, so a half-written step does not exist. Failures are not kept.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import wavegate_server
import wavegate_shared

__all__ = ["Cache", "default_directory"]

_ANSWER = "answer.json"
_KEPT_BYTES = 8 << 30
_SERVER_CODE = ("adapters", "compress", "core")
"""Folders of the server whose code a step may run; a test holds them against what the compressor imports."""
_TOOLS = ("onnx", "onnxruntime", "numpy", "onnxslim", "onnx-ir", "torch", "torch-pruning")


def default_directory() -> Path:
    """Where steps are kept: WAVEGATE_CACHE, else the user's cache directory."""
    named = os.environ.get("WAVEGATE_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else base / "wavegate" / "compress"


class Cache:
    """Steps under one directory. Attributes: hits, number of steps that were found done."""

    def __init__(self, directory: Path) -> None:
        """The directory is made where missing; the oldest steps beyond 8 GiB are dropped."""
        self._directory = directory
        self.hits = 0
        directory.mkdir(parents=True, exist_ok=True)
        self._prune()

    def step(
        self, kind: str, parts: dict[str, Any], make: Callable[[Path], dict[str, Any]]
    ) -> tuple[Path, dict[str, Any]]:
        """The step's folder and answer; `make` writes files into the folder it is given and returns the answer."""
        folder = self._directory / self._key(kind, parts)
        if (folder / _ANSWER).is_file():
            self.hits += 1
            os.utime(folder)
            return folder, json.loads((folder / _ANSWER).read_text(encoding="utf-8"))
        scratch = Path(tempfile.mkdtemp(prefix=".part-", dir=self._directory))
        try:
            answer = make(scratch)
            (scratch / _ANSWER).write_text(json.dumps(answer), encoding="utf-8")
            if not folder.exists():
                scratch.rename(folder)
            return folder, answer
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _key(self, kind: str, parts: dict[str, Any]) -> str:
        text = json.dumps([kind, parts, _maker()], sort_keys=True, default=str)
        return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    def _prune(self) -> None:
        folders = [entry for entry in self._directory.iterdir() if entry.is_dir()]
        left = _KEPT_BYTES
        for folder in sorted(folders, key=lambda entry: entry.stat().st_mtime, reverse=True):
            left -= sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
            if left < 0 and not folder.name.startswith(".part-"):
                shutil.rmtree(folder, ignore_errors=True)


@cache
def _maker() -> dict[str, str]:
    """What steps are made with: versions of the libraries, and a digest of our own code, which an upgrade changes."""
    server = Path(wavegate_server.__file__).parent
    folders = [*(server / name for name in _SERVER_CODE), Path(wavegate_shared.__file__).parent]
    return {**{name: _version(name) for name in _TOOLS}, "code": _code_digest(folders)}


def _code_digest(folders: Iterable[Path]) -> str:
    """One digest of every Python file below these folders, and of where it lies in them."""
    code = hashlib.sha256()
    for folder in folders:
        for source in sorted(folder.rglob("*.py")):
            code.update(source.relative_to(folder).as_posix().encode() + b"\0")
            code.update(hashlib.sha256(source.read_bytes()).digest())
    return code.hexdigest()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
