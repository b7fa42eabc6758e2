"""Opening a bundle from disk: a directory, or a zip that is unpacked under hard limits. Every listed digest is checked."""

import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from wavegate_server.adapters.files.objects import file_sha256
from wavegate_server.core.bundle_spec import BundleSpec, file_name_problem, parse_spec
from wavegate_shared.errors import UsageError

__all__ = ["Bundle", "open_bundle", "write_bundle"]

SPEC_FILE = "bundle.yaml"
MAX_FILES = 200
MAX_BYTES = 4 << 30
_MAX_SPEC_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Bundle:
    """A checked bundle: its directory and what its `bundle.yaml` says."""

    directory: Path
    spec: BundleSpec

    def path(self, name: str) -> Path:
        """Where one of its files lies."""
        return self.directory / name

    @property
    def model_path(self) -> Path:
        """The ONNX file as it lies in the bundle."""
        return self.directory / self.spec.model_file


@contextmanager
def open_bundle(path: Path) -> Iterator[Bundle]:
    """The checked bundle at `path`; a zip is unpacked to a temporary directory for the time of the `with` block.

    Raises:
        UsageError: `bundle_invalid`, naming the file or field that is wrong.
    """
    if path.is_dir():
        yield _check(path)
        return
    if not path.is_file():
        raise UsageError("bundle_invalid", f"{path} is neither a directory nor a file")
    scratch = Path(tempfile.mkdtemp(prefix="wavegate-bundle-"))
    try:
        _unpack(path, scratch)
        yield _check(_root_of(scratch))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_bundle(directory: Path, document: dict[str, object], files: dict[str, Path]) -> None:
    """Write a bundle directory: copies `files` (name -> source), lists their digests, writes `bundle.yaml` last.

    Raises:
        UsageError: `bundle_invalid`: a name that a bundle may not hold; nothing is written then.
    """
    for problem in filter(None, map(file_name_problem, files)):
        raise UsageError("bundle_invalid", problem)
    directory.mkdir(parents=True, exist_ok=True)
    for name, source in files.items():
        target = directory / name
        if source.resolve() != target.resolve():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    document = {**document, "files": {name: file_sha256(directory / name) for name in sorted(files)}}
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    (directory / SPEC_FILE).write_text(text, encoding="utf-8")


def _check(directory: Path) -> Bundle:
    spec_path = directory / SPEC_FILE
    if not spec_path.is_file():
        raise UsageError("bundle_invalid", f"no {SPEC_FILE} in {directory.name}: is this a bundle?")
    if spec_path.stat().st_size > _MAX_SPEC_BYTES:
        raise UsageError("bundle_invalid", f"{SPEC_FILE} is larger than {_MAX_SPEC_BYTES} bytes")
    try:
        document = yaml.safe_load(spec_path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError("bundle_invalid", f"{SPEC_FILE} is not YAML: {error}") from error
    spec = parse_spec(document)
    for name, sha256 in spec.files.items():
        _check_file(directory, name, sha256)
    return Bundle(directory, spec)


def _check_file(directory: Path, name: str, sha256: str) -> None:
    path = directory / name
    if problem := file_name_problem(name):
        raise UsageError("bundle_invalid", problem)
    if path.resolve() != directory.resolve() / name:
        raise UsageError("bundle_invalid", f"{name!r}: a bundle has no links")
    if not path.is_file():
        raise UsageError("bundle_invalid", f"{name} is listed but not there: the bundle is incomplete")
    if file_sha256(path) != sha256:
        raise UsageError("bundle_invalid", f"{name} does not have its listed digest: truncated or changed")


def _unpack(path: Path, scratch: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            if len(members) > MAX_FILES or sum(member.file_size for member in members) > MAX_BYTES:
                raise UsageError("bundle_invalid", f"more than {MAX_FILES} files or {MAX_BYTES >> 30} GiB unpacked")
            for member in members:
                _extract(archive, member, scratch)
    except (zipfile.BadZipFile, EOFError, zipfile.LargeZipFile) as error:
        raise UsageError("bundle_invalid", f"not a whole zip file: {error}") from error


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, scratch: Path) -> None:
    parts = Path(member.filename).parts
    if member.filename.startswith(("/", "\\")) or ".." in parts or stat.S_ISLNK(member.external_attr >> 16):
        raise UsageError("bundle_invalid", f"{member.filename!r} would leave the bundle")
    target = scratch.joinpath(*parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    left = member.file_size
    with archive.open(member) as source, target.open("wb") as file:
        while block := source.read(1 << 20):
            left -= len(block)
            if left < 0:
                raise UsageError("bundle_invalid", f"{member.filename} is larger than the zip says")
            file.write(block)


def _root_of(scratch: Path) -> Path:
    """The bundle's directory: the top of the zip, or its only folder."""
    entries = list(scratch.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else scratch
