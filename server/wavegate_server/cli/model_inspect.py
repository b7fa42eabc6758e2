"""`wavegate model inspect`: what a bare ONNX file is and what would be tried on it, without a server."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wavegate_server.cli.output import JsonFlag, lines, megabytes, print_json, table
from wavegate_server.config import Settings
from wavegate_server.core.class_limits import over_limit

if TYPE_CHECKING:
    from wavegate_server.compress.onnx_graph.inspect import Inspection

__all__ = ["inspect"]


def inspect(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="The ONNX file.", show_default=False)
    ],
    device_class: Annotated[
        str, typer.Option("--for", metavar="CLASS", help="Warn only by the limits of this hardware class.")
    ] = "",
    json_flag: JsonFlag = False,
) -> None:
    """Say what an ONNX file is: family, opset, parameters, compute, dynamic dimensions, what will be tried and why.

    Weights are not loaded, so large files are quick to look at. No server is needed. A model above the parameters or compute
    that `WAVEGATE_CLASS_LIMITS` sets for a hardware class is warned of.

    Example: wavegate model inspect ./model.onnx
    """
    from wavegate_server.compress.onnx_graph.inspect import (  # onnx costs a second: only where a file is read
        as_json,
        inspect_file,
    )

    found = inspect_file(file)
    warnings = over_limit(found.parameters, found.flops, Settings().class_limits, device_class)
    if json_flag:
        print_json({**as_json(found), "warnings": warnings})
        return
    _print(file, found)
    lines(*(f"Warning: {sentence}" for sentence in warnings))


def _print(file: Path, found: "Inspection") -> None:
    kind = "already quantised" if found.quantised else f"{found.family}, {found.head}"
    compute = "compute not counted" if found.flops is None else f"{found.flops / 1e6:,.1f} MFLOPs an inference"
    lines(
        f"{file.name}: {kind}; opset {found.opset}, {found.nodes} nodes",
        f"{found.parameters:,} parameters, {megabytes(found.weight_bytes)} of weights"
        + (f", and {found.subgraph_parameters:,} parameters inside If or Loop" if found.subgraph_parameters else "")
        + (" in files beside it" if found.external else "")
        + f"; {compute}",
    )
    sizes = ", ".join(f"{name} = {size}" for name, size in found.assumed.items())
    if sizes:
        lines(f"dynamic dimensions, and what compute was counted for: {sizes}")
    lines(*found.notes, "")
    shown = [(t.name, t.dtype, str(t.shape)) for t in (*found.inputs, *found.outputs)]
    table(["input or output", "type", "shape"], shown, empty="no inputs")
    blocks = [
        (", ".join(b.nodes[:2]) + (" ..." if len(b.nodes) > 2 else ""), f"{b.parameters:,}", megabytes(b.size_bytes),
         "" if b.macs is None else f"{2 * b.macs / 1e6:,.1f}")
        for b in found.blocks
    ]  # fmt: skip
    table(["block", "parameters#", "size#", "MFLOPs#"], blocks, empty="No weighted nodes.")
    operators = sorted(found.operators.items(), key=lambda each: -each[1])
    lines("operators: " + ", ".join(f"{name} {count}" for name, count in operators), "")
    table(["will be tried", "because"], [(p.recipe, p.why) for p in found.recipes], empty="Nothing will be tried.")
    table(["will not", "because"], [(p.recipe, p.why) for p in found.skipped], empty="")
