"""Make the root install the union of its parts: their dependencies and their scripts."""

import tomllib
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface


class PartsUnion(MetadataHookInterface):
    """Reads `agent/pyproject.toml` and `server/pyproject.toml`; they stay the only place to add a dependency."""

    def update(self, metadata: dict[str, object]) -> None:
        """Fill in the dynamic fields `dependencies` and `scripts`."""
        parts = [
            tomllib.loads(Path(self.root, part, "pyproject.toml").read_text())["project"]
            for part in ("agent", "server")
        ]
        metadata["dependencies"] = sorted({dependency for part in parts for dependency in part["dependencies"]})
        metadata["scripts"] = {name: target for part in parts for name, target in part["scripts"].items()}
