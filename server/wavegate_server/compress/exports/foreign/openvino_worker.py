"""ONNX to OpenVINO IR, run from the written files. See the package's docstring for the interface."""

import importlib
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
    openvino: Any = importlib.import_module("openvino")
    target = Path(job["target"]) / "model.xml"
    openvino.save_model(openvino.convert_model(job["source"]), str(target), compress_to_fp16=False)
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(str(target), "CPU", settings)
    request = compiled.create_infer_request()
    known = {name for entry in compiled.inputs for name in entry.get_names()}
    got, times = {}, []
    with np.load(job["feeds"], allow_pickle=False) as archive:
        samples = {name.split(".", 1)[0] for name in archive.files}
        for sample in sorted(samples, key=int):
            feed = {name: archive[f"{sample}.{name}"] for name in job["inputs"] if name in known}
            for _ in range(_ROUNDS):
                started = time.perf_counter()
                request.infer(feed)
                times.append((time.perf_counter() - started) * 1000)
            for place in range(len(compiled.outputs)):
                got[f"{sample}.{place}"] = np.array(request.get_output_tensor(place).data)
    np.savez(job["got"], allow_pickle=False, **got)
    notes = ["weights as in the original file, computed in fp32 for the comparison"]
    files = ["model.xml", "model.bin"]
    return {
        "tool": f"openvino {openvino.__version__}", "files": files, "p50_ms": float(np.median(times)), "notes": notes,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
