"""`wavegate model export`: a model in another runtime's format, checked here where that can be."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from wavegate_server.cli.output import JsonFlag, lines, megabytes, print_json
from wavegate_server.compress.process.step_cache import default_directory

__all__ = ["export_model"]


def export_model(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", exists=True, help="The bundle, or an ONNX file.", show_default=False)
    ],
    to: Annotated[str, typer.Option(help="`openvino`, `tflite`, `tensorrt` or `coreml`.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Directory for the result; default PATH-TARGET.")] = None,
    inputs: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="For an ONNX file: npz with an array per input.")
    ] = None,
    install: Annotated[
        bool, typer.Option("--install", help="Make the converter's environment where there is none: a download.")
    ] = False,
    cache: Annotated[
        Path | None, typer.Option(help="Where converters are kept; default beside the cache of `wavegate compress`.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Convert a model for another runtime, and compare the result with the original: export only.

    Devices of Wavegate run ONNX, so an export is not published. OpenVINO is made from the ONNX file, TFLite from the torch module
    a bundle has as its `source`; both run here on the bundle's samples before anything is written. TensorRT and Core ML cannot be
    checked here and are refused, with the command to run where they are. No server is needed.

    Example: wavegate model export ./address-match --to openvino --install
    """
    from wavegate_server.compress.exports.export import (  # numpy costs time: only where something is exported
        LABEL,
        export,
    )

    target = out or path.with_name(f"{path.stem}-{to}")
    kept = default_directory()
    environments = cache or kept.with_name(f"{kept.name}-converters")  # not in it: that one is pruned
    with Console(stderr=True).status("looking at the model") as status:
        made = export(
            path, to, target, inputs=inputs, install=install, environments=environments, progress=status.update
        )
    if as_json:
        print_json({**msgspec.to_builtins(made, enc_hook=str), "label": LABEL})
        return
    lines(
        f"{LABEL}: {', '.join(made.files)} in {made.directory}, {megabytes(made.size_bytes)} (ONNX"
        f" {megabytes(made.size_before)}), by {made.tool}",
        f"on {made.samples} samples: the same answer on {made.agreement:.1%}; largest difference {made.difference:.3g} of"
        f" outputs up to {made.largest:.3g}",
        f"p50 {made.p50_ms:.2f} ms there, {made.p50_before_ms:.2f} ms in ONNX Runtime; one thread, one after the other",
        *made.notes,
    )
