"""Every file a bundle came with, kept in the object store, so that a version can be made a bundle again.

Devices get the artifacts only; compression also wants what stays on the server: calibration and evaluation samples, the
torch source, training data, and the model file as it was handed in. Files are named by digest, so versions share them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wavegate_server.adapters.files.bundles import SPEC_FILE, Bundle
from wavegate_server.adapters.files.objects import Objects
from wavegate_shared.errors import UsageError

__all__ = ["is_kept", "keep", "restore"]

_SPEC, _FILES = "bundle_sha256", "files"


def keep(objects: Objects, bundle: Bundle) -> dict[str, Any]:
    """Store the bundle's files; gives what a version's `info` must say so that `restore` finds them. Idempotent: repeating the call has no further effect."""
    files = {name: objects.put_file(bundle.path(name)) for name in sorted(bundle.spec.files)}
    return {_SPEC: objects.put_file(bundle.directory / SPEC_FILE), _FILES: files}


def is_kept(info: Mapping[str, Any]) -> bool:
    """Whether a version's `info` names all files of its bundle; versions of older releases do not."""
    return isinstance(info.get(_FILES), dict) and isinstance(info.get(_SPEC), str)


def restore(objects: Objects, info: Mapping[str, Any], directory: Path) -> None:
    """Write the bundle into `directory`, which is made; `bundle.yaml` comes last, so a half-written one is no bundle.

    The names were checked when the bundle came in.

    Raises:
        UsageError: `conflict` when the version's files were not kept, `not_found` when one is gone from the store.
    """
    if not is_kept(info):
        raise UsageError("conflict", "this version's bundle was not kept; import the bundle again, then it is")
    directory.mkdir(parents=True, exist_ok=True)
    for name, sha256 in info[_FILES].items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        objects.fetch_to(sha256, directory / name)
    objects.fetch_to(info[_SPEC], directory / SPEC_FILE)
