"""The subprocess that runs somebody's torch module once, to export it. It has no network: `sandbox` says how.

Run as `python -m wavegate_server.compress.intake.torch_program` with a job on standard input:
    {"folder": bundle in the making, "source": {...}, "inputs": npz, "target": onnx to write, "weights": safetensors to write,
     "opset": n, "outputs": names or [], "dynamic": {input: [axes]}}
Its answer: {"fence", "parity": {...}, "inputs", "outputs", "parameters", "notes"}, or {"error", "detail"}.
"""

import json
import sys
from typing import TYPE_CHECKING, Any

from wavegate_server.compress.process import sandbox
from wavegate_shared.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from wavegate_server.compress.torch_module.export import Names

__all__ = ["main"]

_MOST_SAMPLES = 512


def main() -> int:
    """Read a job, print the answer; exit code 0 or 1."""
    job = json.load(sys.stdin)
    fence = sandbox.enter()  # before numpy and torch, whose threads would forbid it
    try:
        answer = {"fence": str(fence), **_export(job)}
    except UsageError as error:
        answer = {"error": error.code, "detail": error.detail}
    print("\n" + json.dumps(answer))
    return 1 if "error" in answer else 0


def _export(job: dict[str, Any]) -> dict[str, Any]:
    from pathlib import Path

    import msgspec
    from safetensors.torch import save_file

    from wavegate_server.compress.torch_module import export, load
    from wavegate_server.core.bundle_spec import Source

    module = load.load(Path(job["folder"]), msgspec.convert(job["source"], Source))
    arrays, notes = _arrays(Path(job["inputs"]))
    order = _order(module, list(arrays))
    samples = min(len(array) for array in arrays.values())
    if not samples:
        raise UsageError("bundle_invalid", "there are no samples to compare on")
    if samples > _MOST_SAMPLES:
        notes.append(f"compared on the first {_MOST_SAMPLES} of {samples} samples")
    feeds = [{name: arrays[name][at : at + 1] for name in order} for at in range(min(samples, _MOST_SAMPLES))]
    names = _names(module, feeds[0], order, job)
    parity = export.export_checked(module, feeds, names, Path(job["target"]), opset=int(job["opset"]))
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in module.state_dict().items()}
    save_file(tensors, job["weights"])
    return {
        "parity": {
            "max_abs": parity.max_abs,
            "scale": parity.scale,
            "agreement": parity.agreement,
            "samples": parity.samples,
        },
        "inputs": names.inputs,
        "outputs": names.outputs,
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "notes": notes,
    }


def _arrays(npz: Any) -> tuple[dict[str, "NDArray[Any]"], list[str]]:
    """Inputs by name; float64 becomes float32, which is what modules compute in."""
    from wavegate_server.compress.intake.onnx_file import read_arrays

    given = read_arrays(npz)
    given.pop("label", None)
    notes, arrays = [], {}
    for name, array in given.items():
        short = name.removeprefix("input.") or "input"
        if array.dtype == "float64":
            notes.append(f"input {short}: float64 taken as float32")
            array = array.astype("float32")
        if array.dtype.kind not in "iufb":
            raise UsageError("bundle_invalid", f"input {short}: {array.dtype} is nothing a torch module takes")
        arrays[short] = array
    if not arrays:
        raise UsageError("bundle_invalid", f"{npz.name} holds no inputs")
    return arrays, notes


def _order(module: Any, given: list[str]) -> list[str]:
    """The inputs in the order the module takes them: by the names of its forward pass."""
    import inspect

    if len(given) == 1:
        return given
    taken = [
        name
        for name, parameter in inspect.signature(module.forward).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    front = taken[: len(given)]
    if set(front) != set(given):
        raise UsageError("bundle_invalid", f"forward takes {', '.join(taken)}; the inputs are {', '.join(given)}")
    return front


def _names(module: Any, feed: dict[str, "np.ndarray[Any, Any]"], order: list[str], job: dict[str, Any]) -> "Names":
    from wavegate_server.compress.torch_module import export

    outputs = job["outputs"] or export.output_names(module, [feed[name] for name in order])
    dynamic = job["dynamic"]
    unknown = sorted(set(dynamic) - set(order))
    if unknown:
        raise UsageError("invalid", f"--dynamic names {', '.join(unknown)}; the inputs are {', '.join(order)}")
    axes: dict[str, dict[int, str]] = {name: {0: "batch"} for name in (*order, *outputs)}
    for name, places in dynamic.items():
        if any(not 0 < place < feed[name].ndim for place in places):
            raise UsageError(
                "invalid", f"--dynamic {name}: it has the axes 0 (always dynamic) to {feed[name].ndim - 1}"
            )
        axes[name].update({place: f"{name}_{place}" for place in places})
    return export.Names(order, list(outputs), axes)


if __name__ == "__main__":
    sys.exit(main())
