"""A torch program (`torch.export`) to TFLite, run from the written file. See the package's docstring for the interface."""

import importlib
import importlib.metadata
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

_ROUNDS = 5


def main() -> int:
    """Read a job from standard input, print the answer; what the converter raises ends it, and is the parent's reason."""
    print("\n" + json.dumps(_convert(json.load(sys.stdin))))
    return 0


def _convert(job: dict[str, Any]) -> dict[str, Any]:
    torch: Any = importlib.import_module("torch")
    litert: Any = importlib.import_module("litert_torch")
    with np.load(job["feeds"], allow_pickle=False) as archive:
        feeds = {name: archive[name] for name in archive.files}
    first = [feeds[f"0.{name}"] for name in job["inputs"]]
    module = torch.export.load(job["source"]).module()
    target = Path(job["target"]) / "model.tflite"
    litert.convert(module, tuple(torch.from_numpy(array) for array in first)).export(str(target))
    got, times, left_out = _run(target, feeds, job["inputs"], first)
    np.savez(job["got"], allow_pickle=False, **got)
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in zip(job["inputs"], first, strict=True))
    notes = [f"made for inputs of one shape: {shapes}"]
    if left_out:
        notes.append(f"{left_out} samples of another shape were not compared")
    tool = f"litert-torch {importlib.metadata.version('litert-torch')}, torch {torch.__version__}"
    return {"tool": tool, "files": ["model.tflite"], "p50_ms": float(np.median(times)), "notes": notes}


def _run(
    target: Path, feeds: dict[str, Any], names: list[str], first: list[Any]
) -> tuple[dict[str, Any], list[float], int]:
    interpreter = importlib.import_module("ai_edge_litert.interpreter").Interpreter(str(target), num_threads=1)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()
    # the converter calls arguments args_0, args_1, ... and results output_0, ...: in the order of the module's own
    places = sorted(runner.get_input_details(), key=lambda name: int(name.rpartition("_")[2]))
    got: dict[str, Any] = {}
    times: list[float] = []
    left_out = 0
    for sample in sorted({name.split(".", 1)[0] for name in feeds}, key=int):
        arrays = [feeds[f"{sample}.{name}"] for name in names]
        if any(a.shape != b.shape for a, b in zip(arrays, first, strict=True)):
            left_out += 1
            continue
        for _ in range(_ROUNDS):
            started = time.perf_counter()
            answer = runner(**dict(zip(places, arrays, strict=True)))
            times.append((time.perf_counter() - started) * 1000)
        ordered = sorted(answer, key=lambda name: int(name.rpartition("_")[2]))
        got.update({f"{sample}.{place}": answer[name] for place, name in enumerate(ordered)})
    return got, times, left_out


if __name__ == "__main__":
    sys.exit(main())
