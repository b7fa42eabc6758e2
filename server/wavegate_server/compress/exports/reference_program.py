"""The subprocess that makes what an exported model is compared with: `python -m wavegate_server.compress.exports.reference_program`.

Job: {"model", "samples", "rows", "directory", "pre", "feeds": npz to write, "reference": npz to write}
    -> {"inputs": [names in the graph's order], "outputs": [names], "samples", "p50_ms"}
Feeds are kept as `<sample>.<input name>`, all outputs as `<sample>.<place>`. One intra-op thread.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from wavegate_server.compress.measure.ort_errors import ORT_ERRORS
from wavegate_server.compress.measure.samples import load_samples
from wavegate_shared.errors import UsageError

__all__ = ["main"]

_ROUNDS = 5


def main() -> int:
    """Read a job from standard input, print the answer; exit code 0 or 1."""
    job = json.load(sys.stdin)
    try:
        answer = _reference(job)
    except UsageError as error:
        answer = {"error": error.code, "detail": error.detail}
    except ORT_ERRORS as error:
        answer = {"error": "load_failed", "detail": (str(error).splitlines() or ["?"])[0][:400]}
    print("\n" + json.dumps(answer))
    return 1 if "error" in answer else 0


def _reference(job: dict[str, Any]) -> dict[str, Any]:
    samples = load_samples(Path(job["samples"]), job["pre"], Path(job["directory"])).feeds[: job["rows"]]
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(job["model"], options, providers=["CPUExecutionProvider"])
    inputs = [entry.name for entry in session.get_inputs()]
    feeds, outputs, times = {}, {}, []
    for number, sample in enumerate(samples):
        lacking = [name for name in inputs if name not in sample]
        if lacking:
            raise UsageError("bundle_invalid", f"the samples lack {', '.join(lacking)}")
        feed = {name: sample[name] for name in inputs}
        feeds.update({f"{number}.{name}": array for name, array in feed.items()})
        for _ in range(_ROUNDS):
            started = time.perf_counter()
            got = session.run(None, feed)
            times.append((time.perf_counter() - started) * 1000)
        outputs.update({f"{number}.{place}": np.asarray(array) for place, array in enumerate(got)})
    np.savez(job["feeds"], allow_pickle=False, **feeds)
    np.savez(job["reference"], allow_pickle=False, **outputs)
    names = [entry.name for entry in session.get_outputs()]
    return {"inputs": inputs, "outputs": names, "samples": len(samples), "p50_ms": float(np.median(times))}


if __name__ == "__main__":
    sys.exit(main())
