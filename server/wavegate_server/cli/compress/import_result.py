"""After `wavegate compress` on this machine: original and result become versions of the server's registry, where there is one.

Compression needs no server: none set up, none that answers, or one that refuses is said, and the result stays where it is.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import typer

from wavegate_server.adapters.files.bundles import SPEC_FILE, Bundle
from wavegate_server.adapters.files.objects import file_sha256
from wavegate_server.cli.client import Connection, connect
from wavegate_server.cli.upload import upload_progress, zipped
from wavegate_server.client import Client, at
from wavegate_server.config import Settings
from wavegate_server.core.advice import Refused
from wavegate_shared.errors import TransferError, UsageError

__all__ = ["Taken", "is_set_up", "take"]


@dataclass(frozen=True, slots=True)
class Taken:
    """What the registry holds now. `note`: why nothing was imported, or "" ; versions are None where there is none."""

    model: str = ""
    original: int | None = None
    result: int | None = None
    job: int | None = None
    note: str = ""

    def as_json(self) -> dict[str, Any] | None:
        """For programs; None when nothing was imported."""
        if self.original is None:
            return None
        return {"model": self.model, "original": self.original, "result": self.result, "job": self.job}

    def sentences(self, written: Path | None) -> list[str]:
        """What was done and what comes next."""
        if self.result is not None:
            made = f"imported as {self.model} {self.result}, made from {self.model} {self.original}, not published"
            return [made, f"next: wavegate model publish {self.model} {self.result}"]
        said = [f"not imported: {self.note}"] if self.note else []
        return [*said, f"next: wavegate model import {written}"] if written is not None else said


def take(context: typer.Context, bundle: Bundle, written: Path | None, record: dict[str, Any], *, quiet: bool) -> Taken:
    """Import the original, if the registry does not have it, and the result, and keep the candidates with them."""
    if not is_set_up(context):
        return Taken(note="no server is set up for this command (no token)")
    try:
        with connect(context) as client:
            return _take(client, bundle, written, record, quiet=quiet)
    except (TransferError, UsageError) as error:
        return Taken(note=error.detail)
    except Refused as refused:
        return Taken(note=f"the server refused: {refused.problem['detail']}")


def is_set_up(context: typer.Context) -> bool:
    """Whether this command knows of a server."""
    connection = context.find_object(Connection) or Connection()
    named = connection.server or connection.token_file or os.environ.get("WAVEGATE_SERVER")
    return bool(named or os.environ.get("WAVEGATE_TOKEN")) or Settings().admin_token_file.is_file()


def _take(client: Client, bundle: Bundle, written: Path | None, record: dict[str, Any], *, quiet: bool) -> Taken:
    model = bundle.spec.model
    original = _known(client, bundle) or _import(client, bundle.directory, quiet=quiet)
    result = None if written is None else _import(client, written, quiet=quiet)
    fields = {**record, "model": model, "version": original, "result_version": result}
    job = client.post("/compress-jobs/record", fields)
    return Taken(model, original, result, job["id"])


def _known(client: Client, bundle: Bundle) -> int | None:
    """The version this bundle already is."""
    digest = file_sha256(bundle.directory / SPEC_FILE)
    try:
        versions = client.pages(at("models", bundle.spec.model, "versions"))
    except Refused as refused:
        if refused.problem["code"] == "not_found":
            return None
        raise
    same = [version for version in versions if version["info"].get("bundle_sha256") == digest]
    return int(same[0]["number"]) if same else None


def _import(client: Client, path: Path, *, quiet: bool) -> int:
    with zipped(path) as archive, upload_progress(archive, quiet=quiet) as file:
        answer = client.upload("/models/import", archive.name, cast(BinaryIO, file), {"unchecked": "false"})
    return int(answer["version"]["number"])
