"""The declared pre- and post-processing operations of a version, from its directory. Worker only.

What an operation does stands in `wavegate_shared.preprocess`. An operation not known here means the device lacks what the
version requires (`incompatible`), found when it is loaded, not at the first request.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wavegate_shared import preprocess
from wavegate_shared.errors import DeviceError
from wavegate_shared.manifest import Manifest, Pre
from wavegate_shared.preprocess import Step

__all__ = ["Step", "build_post", "build_pre", "declared"]


def build_pre(manifest: Manifest, directory: Path) -> list[Step]:
    """The manifest's pre-processing, ready to run. Raises DeviceError `incompatible` or `load_failed`."""
    try:
        return preprocess.build_pre(declared(manifest.pre), lambda name: (directory / name).read_bytes())
    except (ValueError, OSError) as error:
        raise DeviceError("load_failed", f"pre-processing: {error}") from error


def build_post(manifest: Manifest) -> list[Step]:
    """The manifest's post-processing, ready to run. Raises DeviceError `incompatible` or `load_failed`."""
    try:
        return preprocess.build_post(declared(manifest.post))
    except ValueError as error:
        raise DeviceError("load_failed", f"post-processing: {error}") from error


def declared(operations: list[Pre]) -> list[Mapping[str, Any]]:
    """A manifest's operations as they were declared in the bundle."""
    return [{**operation.options, "op": operation.op} for operation in operations]
