"""The Python files of a torch module, gathered into the folder `source/` of a bundle. Nothing is run: imports are read.

`file.py:function` takes the file and, of what it imports, the files and packages beside it. `module:function` looks in the
working directory first; a module that is installed instead is only named, and must be installed wherever the bundle is used.
"""

import ast
import importlib.machinery
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from wavegate_server.core.bundle_spec import SOURCE_FOLDER
from wavegate_shared.errors import UsageError

__all__ = ["Gathered", "gather"]

_ENTRY = "wavegate_entry.py"
_MOST_FILES = 150
_LARGEST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Gathered:
    """What lies in `source/` now. Attributes: factory as `bundle.yaml` has it, files (name -> path), notes."""

    factory: str
    files: dict[str, Path]
    notes: list[str] = field(default_factory=list)


def gather(named: str, folder: Path, working: Path) -> Gathered:
    """Copy what `named` needs to `folder/source`.

    Args:
        named: `file.py:function` or `package.module:function`.
        folder: where the bundle is being made.
        working: where modules are looked for first.

    Raises:
        UsageError: `invalid`: not of that form; `bundle_invalid`: no such file or module, or too much of it.
    """
    place, _, function = named.rpartition(":")
    if not place or not function.isidentifier():
        raise UsageError("invalid", f"{named!r} names no function: write file.py:function or module:function")
    if place.endswith(".py"):
        file = working / place
        if not file.is_file():
            raise UsageError("bundle_invalid", f"no file {place}")
        root = file.resolve().parent
        files = _copy(root, _closure(root, [file.resolve()]), folder)
        return Gathered(f"{SOURCE_FOLDER}/{file.name}:{function}", files)
    if not all(part.isidentifier() for part in place.split(".")):
        raise UsageError("invalid", f"{place!r} is neither a file.py nor a module")
    return _module(place, function, folder, working)


def _module(place: str, function: str, folder: Path, working: Path) -> Gathered:
    top, root = place.partition(".")[0], working.resolve()
    beside = _beside(root, top)
    notes = []
    if not beside and importlib.machinery.PathFinder.find_spec(top) is None:
        raise UsageError("bundle_invalid", f"no module {top}, neither in this directory nor installed")
    if not beside:
        notes.append(f"module {top} is not in the bundle: it must be installed wherever the bundle is compressed")
    files = _copy(root, _closure(root, beside), folder)
    entry = folder / SOURCE_FOLDER / _ENTRY
    entry.parent.mkdir(parents=True, exist_ok=True)
    entry.write_text(f"from {place} import {function}\n\n__all__ = [{function!r}]\n", encoding="utf-8")
    files[f"{SOURCE_FOLDER}/{_ENTRY}"] = entry
    return Gathered(f"{SOURCE_FOLDER}/{_ENTRY}:{function}", files, notes)


def _closure(root: Path, entries: list[Path]) -> list[Path]:
    """`entries` and every file in `root` that they import, directly or through others."""
    found, todo = set(entries), list(entries)
    while todo:
        for name in _imports(todo.pop()):
            fresh = [file for file in _beside(root, name) if file not in found]
            found.update(fresh)
            todo.extend(fresh)
        if len(found) > _MOST_FILES:
            raise UsageError("bundle_invalid", f"the module is made of more than {_MOST_FILES} files beside it")
    return sorted(found)


def _beside(root: Path, name: str) -> list[Path]:
    """The files of module `name` in `root`: one file, or all of a package."""
    if (root / f"{name}.py").is_file():
        return [root / f"{name}.py"]
    if (root / name).is_dir():
        return sorted(file for file in (root / name).rglob("*.py") if file.is_file() and not file.is_symlink())
    return []


def _imports(file: Path) -> set[str]:
    """First parts of the absolute names a file imports."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise UsageError("bundle_invalid", f"{file.name} is not Python: {error}") from error
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module.partition(".")[0])
    return names


def _copy(root: Path, found: list[Path], folder: Path) -> dict[str, Path]:
    files = {}
    for file in found:
        if file.stat().st_size > _LARGEST_BYTES:
            raise UsageError("bundle_invalid", f"{file.name} is larger than {_LARGEST_BYTES >> 20} MiB")
        name = f"{SOURCE_FOLDER}/{file.relative_to(root).as_posix()}"
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        files[name] = target
    return files
