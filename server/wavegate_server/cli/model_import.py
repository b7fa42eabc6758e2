"""`wavegate model import`: a bundle becomes a version on the server; an ONNX file or a torch module becomes a bundle here."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, cast

import typer
from rich.console import Console

from wavegate_server.cli.client import connect
from wavegate_server.cli.output import JsonFlag, lines, print_json
from wavegate_server.cli.upload import upload_progress, zipped

if TYPE_CHECKING:
    from wavegate_server.compress.intake.onnx_file import Bare, Given
    from wavegate_server.compress.intake.torch_module import TorchModule

__all__ = ["import_model"]

_FILE, _TORCH, _BOTH = "For an ONNX file", "With --torch", "For an ONNX file or --torch"
PathArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="[PATH]", exists=True, help="The bundle, a directory or a zip; or an ONNX file.", show_default=False
    ),
]
Unchecked = Annotated[
    bool, typer.Option("--unchecked", help="Import even when the golden set fails here; devices still refuse it.")
]
Inputs = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help=f"{_BOTH}: npz with an array per input.")
]
Labels = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help=f"{_BOTH}: npy, or npz with `label`.")]
MetricName = Annotated[
    str, typer.Option(help=f"{_BOTH}: what it is judged by, as f1 or error_bound:5%; default accuracy or error.")
]
Name = Annotated[str, typer.Option(help=f"{_BOTH}: the model's name; default from the file's.")]
Out = Annotated[Path | None, typer.Option(help=f"{_BOTH}: where the bundle goes; default FILE-bundle.")]
Train = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help=f"{_BOTH}: npz like --inputs, with `label`, to distil with."),
]
Pre = Annotated[
    Path | None,
    typer.Option(
        exists=True, dir_okay=False, help=f"{_FILE}: YAML or JSON with operations that make its inputs of --inputs."
    ),
]
Torch = Annotated[
    str,
    typer.Option(
        "--torch",
        metavar="MODULE:FUNCTION",
        help="Instead of PATH: gives the torch module; file.py:function or module:function.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(exists=True, help=f"{_TORCH}: its state dict, safetensors or what torch reads weights-only."),
]
Options = Annotated[str, typer.Option(metavar="JSON", help=f"{_TORCH}: keyword arguments of the function.")]
Opset = Annotated[int, typer.Option(help=f"{_TORCH}: version of the ONNX operators.")]
Outputs = Annotated[str, typer.Option(metavar="NAME,...", help=f"{_TORCH}: names of the outputs, in order.")]
Dynamic = Annotated[
    str, typer.Option(metavar="INPUT:AXIS,...", help=f"{_TORCH}: axes that may vary, besides the batch (axis 0).")
]


def import_model(
    context: typer.Context,
    path: PathArgument = None,
    unchecked: Unchecked = False,
    inputs: Inputs = None,
    labels: Labels = None,
    metric: MetricName = "",
    name: Name = "",
    out: Out = None,
    train: Train = None,
    pre: Pre = None,
    torch: Torch = "",
    weights: Weights = None,
    options: Options = "{}",
    opset: Opset = 17,
    outputs: Outputs = "",
    dynamic: Dynamic = "",
    as_json: JsonFlag = False,
) -> None:
    """Make a new version of a bundle; or a bundle of an ONNX file, or of a torch module.

    The same bundle again gives the version it already is. Of an ONNX file with `--inputs` a bundle is made, here and without
    a server: ready for `wavegate compress` and, after a look, for this command. Without labels it is judged by agreement
    with the original. `--pre` declares what devices do with an input before the graph takes it: decode, crop, resize,
    channels, scale, normalise, transpose, wordpiece.

    A torch module is run in a process without network, exported, and compared with its graph on the inputs; it is refused
    when they differ. Its weights are read as data only. The bundle keeps both as its source, so that it can be pruned and
    distilled. TensorFlow models are refused with the command that converts them.

    Example: wavegate model import --torch net.py:build --weights net.safetensors --inputs x.npz --train train.npz
    """
    bare = torch or inputs is not None or (path is not None and _is_model(path))
    if not bare and path is not None:
        _send(context, path, unchecked=unchecked, as_json=as_json)
        return
    inputs = _checked(path, torch, inputs, pre)
    from wavegate_server.compress.intake.onnx_file import Given

    given = Given(inputs, labels, metric, name, train, pre)
    if path is not None:
        _bundle_of_file(path, given, out, as_json=as_json)
        return
    if weights is None:
        raise typer.BadParameter("name the module's weights with --weights FILE", param_hint="--weights")
    module = _module(torch, weights, options, opset, outputs, dynamic)
    _bundle_of_module(module, given, out, as_json=as_json)


def _checked(path: Path | None, torch: str, inputs: Path | None, pre: Path | None) -> Path:
    """The inputs of a bare model, once what was named goes together."""
    if path is not None and torch:
        raise typer.BadParameter("name a file or a torch module, not both", param_hint="--torch")
    if torch and pre is not None:
        raise typer.BadParameter(
            "a torch module is exported on its own inputs: import the ONNX file", param_hint="--pre"
        )
    if path is None and not torch:
        raise typer.BadParameter("name a bundle, an ONNX file, or a torch module with --torch", param_hint="PATH")
    if path is not None:
        from wavegate_server.compress.intake.frameworks import refuse_foreign

        refuse_foreign(path)
    if inputs is None:
        raise typer.BadParameter(
            "a model alone is not enough: name its inputs with --inputs X.npz", param_hint="--inputs"
        )
    return inputs


def _is_model(path: Path) -> bool:
    """Whether this is a model file or folder, of any framework, and no bundle."""
    if path.is_dir():
        return not (path / "bundle.yaml").is_file() and any(path.glob("saved_model.pb*"))
    return path.suffix.lower() in (
        ".onnx", ".h5", ".hdf5", ".keras", ".pb", ".tflite", ".pt", ".pth", ".ckpt", ".safetensors"
    )  # fmt: skip


def _bundle_of_file(file: Path, given: "Given", out: Path | None, *, as_json: bool) -> None:
    from wavegate_server.compress.intake.onnx_file import make_bundle

    with Console(stderr=True).status(f"running {file.name} on all samples"):
        made = make_bundle(file, given, out or file.with_name(f"{file.stem}-bundle"))
    if as_json:
        print_json(_facts(made))
        return
    _print_made(made)


def _bundle_of_module(module: "TorchModule", given: "Given", out: Path | None, *, as_json: bool) -> None:
    from wavegate_server.compress.intake.torch_module import import_torch

    target = out or Path(f"{given.name or module.stem}-bundle")
    with Console(stderr=True).status("gathering the module's files") as status:
        made = import_torch(module, given, target, tell=lambda text: status.update(text))
    parity = made.parity
    if as_json:
        print_json({**_facts(made.bare), "parity": parity, "no_network_by": made.fence})
        return
    _print_made(made.bare)
    lines(
        f"parity with torch on {parity['samples']:.0f} samples: outputs up to {parity['scale']:.3g} differ by at most"
        f" {parity['max_abs']:.2g}; the largest output is the same one for {parity['agreement']:.1%} of them",
        f"the module ran without network: {made.fence}",
    )


def _module(torch: str, weights: Path, options: str, opset: int, outputs: str, dynamic: str) -> "TorchModule":
    from wavegate_server.compress.intake.torch_module import TorchModule

    try:
        arguments = json.loads(options)
    except ValueError as error:
        raise typer.BadParameter(f"not JSON: {error}", param_hint="--options") from error
    if not isinstance(arguments, dict):
        raise typer.BadParameter('write a JSON object, as {"width": 64}', param_hint="--options")
    names = [name.strip() for name in outputs.split(",") if name.strip()]
    return TorchModule(torch, weights, arguments, opset, names, _axes(dynamic))


def _axes(text: str) -> dict[str, list[int]]:
    axes: dict[str, list[int]] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, _, axis = part.rpartition(":")
        if not name or not axis.isdecimal():
            raise typer.BadParameter(f"{part!r}: write INPUT:AXIS, as input_ids:1", param_hint="--dynamic")
        axes.setdefault(name, []).append(int(axis))
    return axes


def _facts(made: "Bare") -> dict[str, Any]:
    facts = {"metric": made.metric, "value": made.value, "samples": made.samples, "notes": made.notes}
    return {"bundle": str(made.directory), **facts}


def _print_made(made: "Bare") -> None:
    sets = ", ".join(f"{count} {each}" for each, count in made.samples.items())
    lines(f"bundle written to {made.directory}: {made.metric} {made.value:.4g}; samples: {sets}", *made.notes)
    lines(f"next: wavegate compress {made.directory}, or wavegate model import {made.directory}")


def _send(context: typer.Context, path: Path, *, unchecked: bool, as_json: bool) -> None:
    with zipped(path) as archive, connect(context) as client, upload_progress(archive, quiet=as_json) as file:
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
