"""`wavegate model ...`: import a bundle, publish, take back, alias, look at."""

import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from wavegate_server.cli_client import at, connect
from wavegate_server.cli_export import export_model
from wavegate_server.cli_inspect import inspect, make_bundle
from wavegate_server.cli_output import JsonFlag, figure, lines, megabytes, print_json, table
from wavegate_shared.errors import UsageError

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.", show_default=False)]
Number = Annotated[int, typer.Argument(metavar="VERSION", help="The version's number.", min=1, show_default=False)]

app.command()(inspect)
app.command("export")(export_model)


@app.command("import")
def import_bundle(
    context: typer.Context,
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH", exists=True, help="The bundle, a directory or a zip; or an ONNX file.", show_default=False
        ),
    ],
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Import even when the golden set fails here; devices still refuse it.")
    ] = False,
    inputs: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="For an ONNX file: npz with an array per input.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="For an ONNX file: npy, or npz with `label`.")
    ] = None,
    metric: Annotated[
        str, typer.Option(help="For an ONNX file: what it is judged by; default accuracy or error.")
    ] = "",
    name: Annotated[str, typer.Option(help="For an ONNX file: the model's name; default from the file's.")] = "",
    out: Annotated[
        Path | None, typer.Option(help="For an ONNX file: where the bundle goes; default FILE-bundle.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a new version of a bundle, or a bundle of an ONNX file.

    The same bundle again gives the version it already is. Of an ONNX file with `--inputs` a bundle is made, here and without
    a server: ready for `wavegate compress` and, after a look, for this command. Without labels it is judged by agreement
    with the original.

    Example: wavegate model import deploy/models/address-match/bundle
    """
    if path.suffix == ".onnx" or inputs is not None:
        make_bundle(path, inputs, labels=labels, metric=metric, name=name, out=out, as_json=as_json)
        return
    with _zipped(path) as archive, connect(context) as client, _progress(archive, quiet=as_json) as file:
        fields = {"unchecked": "true" if unchecked else "false"}
        answer = client.upload("/models/import", archive.name, cast(BinaryIO, file), fields)
    if as_json:
        print_json(answer)
        return
    version = answer["version"]
    name = f"{version['model']} {version['number']}"
    lines(f"{name} is " + ("imported." if answer["created"] else "this bundle already; nothing was changed."))
    lines(*(f"Warning: {sentence}" for sentence in answer["warnings"]))
    if version["state"] == "imported":
        lines(f"Sign it into the release list: wavegate model publish {name}")


@app.command()
def publish(context: typer.Context, model: ModelName, version: Number, as_json: JsonFlag = False) -> None:
    """Sign a version into the release list, so that rollouts can offer it. Repeating it changes nothing.

    Example: wavegate model publish address-match 2
    """
    with connect(context) as client:
        answer = client.post(at("models", model, "versions", version, "publish"))
    if as_json:
        print_json(answer)
    else:
        lines(f"{model} {version} is published.")


@app.command()
def revoke(
    context: typer.Context,
    model: ModelName,
    version: Number,
    reason: Annotated[str, typer.Option(help="Why, for the audit log.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Take a version off the release list: no device installs it any more. Roll devices that run it to another one.

    Example: wavegate model revoke address-match 3 --reason "trained on wrong labels"
    """
    with connect(context) as client:
        answer = client.post(at("models", model, "versions", version, "revoke"), {"reason": reason})
    if as_json:
        print_json(answer)
    else:
        lines(f"{model} {version} is revoked; {answer['devices']} devices still run it.")


@app.command()
def alias(
    context: typer.Context,
    model: ModelName,
    name: Annotated[str, typer.Argument(metavar="ALIAS", help="`champion` or `challenger`.", show_default=False)],
    version: Annotated[
        int | None, typer.Argument(metavar="[VERSION]", help="The version it names; left out: none.", min=1)
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Point `champion` (in charge) or `challenger` (on trial) at a published version.

    Example: wavegate model alias address-match champion 2
    """
    with connect(context) as client:
        answer = client.change("PUT", at("models", model, "aliases", name), at("models", model), {"version": version})
    if as_json:
        print_json(answer)
    else:
        lines(f"{name} of {model} is {'nothing' if version is None else version}.")


@app.command("list")
def list_models(context: typer.Context, as_json: JsonFlag = False) -> None:
    """List models with their newest versions.

    Example: wavegate model list
    """
    with connect(context) as client:
        models = client.pages("/models")
    if as_json:
        print_json({"items": models})
        return
    table(
        ["model", "task", "newest#", "state", "champion#", "challenger#", "versions#", "devices#"],
        [
            (
                m["name"],
                m["task"],
                new["number"],
                new["state"],
                m["champion"],
                m["challenger"],
                m["versions"],
                m["devices"],
            )
            for m in models
            for new in [m["newest"] or {"number": None, "state": None}]
        ],
        empty="No models yet: wavegate model import PATH",
    )


@app.command()
def show(
    context: typer.Context,
    model: ModelName,
    version: Annotated[
        int | None, typer.Argument(metavar="[VERSION]", help="One version with its before/after table.", min=1)
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show a model's versions, or one version with the before/after table it was signed with.

    Example: wavegate model show address-match 2
    """
    with connect(context) as client:
        if version is not None:
            one = client.get(at("models", model, "versions", version))
            print_json(one) if as_json else _show_version(one)
            return
        head = client.get(at("models", model))
        versions = client.pages(at("models", model, "versions"))
    if as_json:
        print_json({**head, "items": versions})
        return
    lines(f"{head['name']}: {head['description'] or head['task']}")
    table(
        ["version#", "state", "recipe", "size#", "metric", "value#", "devices#", "note"],
        [
            (
                v["number"],
                v["state"],
                v["recipe"],
                megabytes(v["size_bytes"]),
                v["metric"]["name"],
                figure(v["metric_value"], v["metric"]["unit"]),
                v["devices"],
                _note(head, v),
            )
            for v in versions
        ],
        empty="No versions yet.",
    )


def _show_version(version: dict[str, Any]) -> None:
    metric = version["metric"]
    lines(
        f"{version['model']} {version['number']}: {version['state']}, {version['recipe']}, {megabytes(version['size_bytes'])}",
        f"{metric['name']} {figure(version['metric_value'], metric['unit'])} over {version['golden_samples']} golden samples,"
        f" limit {figure(version['golden_limit'], metric['unit'])}; {version['devices']} devices run it",
    )
    table(
        ["", "before#", "after#"],
        [
            (row["name"], figure(row["before"], row["unit"]), figure(row["after"], row["unit"]))
            for row in version["comparison"]
        ],
        empty="It was imported as it is: there is no before/after table.",
    )
    table(
        ["file", "role", "size#", "sha256"],
        [(a["name"], a["role"], megabytes(a["size_bytes"]), a["sha256"][:16]) for a in version["artifacts"]],
        empty="No files.",
    )


def _note(model: dict[str, Any], version: dict[str, Any]) -> str:
    names = [name for name in ("champion", "challenger") if model[name] == version["number"]]
    return ", ".join([*names, "denied by a gate"] if version["denied"] else names)


@contextmanager
def _zipped(path: Path) -> Iterator[Path]:
    """The bundle as a zip: the file itself, or a temporary zip of the directory, gone afterwards."""
    if path.is_file():
        yield path
        return
    if not (path / "bundle.yaml").is_file():
        raise UsageError("bundle_invalid", f"{path} holds no bundle.yaml")
    with tempfile.TemporaryDirectory(prefix="wavegate-") as scratch:
        archive = Path(scratch) / f"{path.resolve().name}.zip"
        with zipfile.ZipFile(
            archive, "w", zipfile.ZIP_STORED
        ) as out:  # weights do not compress; the sum is checked anyway
            for file in sorted(item for item in path.rglob("*") if item.is_file() and not item.is_symlink()):
                out.write(file, file.relative_to(path))
        yield archive


@contextmanager
def _progress(archive: Path, *, quiet: bool) -> Iterator["_Counted"]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with (
        archive.open("rb") as file,
        Progress(*columns, console=Console(stderr=True), disable=quiet, transient=True) as bar,
    ):
        task = bar.add_task(f"uploading {archive.name}", total=os.fstat(file.fileno()).st_size)

        def moved(size: int) -> None:
            bar.advance(task, size)
            if bar.finished:
                bar.update(task, description="the server checks the bundle")

        yield _Counted(file, moved)


class _Counted:
    """A file that tells how much of it was read; only what httpx needs of a file."""

    def __init__(self, file: BinaryIO, moved: Any) -> None:
        self._file = file
        self._moved = moved

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._moved(len(data))
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def fileno(self) -> int:
        return self._file.fileno()
