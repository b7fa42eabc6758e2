"""A model too large to be held twice: synthetic weights in a file beside it, written piece by piece; and a memory gauge.

An embedding of half of the bytes, then pairs of products that widen to four times and back, a mean, a head of 16 classes. At
width 1024 and 12 pairs it has 805 MB.
"""

import os
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from onnx import TensorProto, helper

CLASSES = 16
_PIECE = 1 << 22
_PAGE = os.sysconf("SC_PAGE_SIZE")


def write_large(folder: Path, *, width: int = 1024, pairs: int = 12) -> Path:
    """Write `large.onnx` and `large.onnx.data`; gives the first. Samples of it: `tokens`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = pairs * 8 * width
    shapes = {"table": (rows, width)}
    nodes = [helper.make_node("Gather", ["table", "tokens"], ["x0"], name="look_up")]
    for at in range(pairs):
        shapes |= {f"up{at}": (width, 4 * width), f"down{at}": (4 * width, width)}
        nodes += [
            helper.make_node("MatMul", [f"x{at}", f"up{at}"], [f"u{at}"], name=f"widen{at}"),
            helper.make_node("Relu", [f"u{at}"], [f"r{at}"], name=f"relu{at}"),
            helper.make_node("MatMul", [f"r{at}", f"down{at}"], [f"d{at}"], name=f"narrow{at}"),
            helper.make_node("Add", [f"x{at}", f"d{at}"], [f"x{at + 1}"], name=f"sum{at}"),
        ]
    shapes["head"] = (width, CLASSES)
    nodes += [
        helper.make_node("ReduceMean", [f"x{pairs}"], ["mean"], name="mean", axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "head"], ["logits"], name="head"),
    ]
    rng = np.random.default_rng(6)
    held = []
    with (folder / "large.onnx.data").open("wb") as file:
        for name, shape in shapes.items():
            held.append(_write(file, name, shape, rng))
    inputs = [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["n", 8])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])]
    graph = helper.make_graph(nodes, "large", inputs, outputs, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "large.onnx").write_bytes(model.SerializeToString())
    return folder / "large.onnx"


def _write(file: BinaryIO, name: str, shape: tuple[int, int], rng: np.random.Generator) -> TensorProto:
    start, left = file.tell(), shape[0] * shape[1]
    while left:
        piece = rng.standard_normal(min(left, _PIECE), dtype=np.float32) / np.float32(np.sqrt(shape[0]))
        file.write((piece * np.float32(np.sqrt(shape[0])) if name == "table" else piece).tobytes())
        left -= len(piece)
    tensor = TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "large.onnx.data"), ("offset", start), ("length", file.tell() - start)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def tokens(samples: int, *, width: int = 1024, pairs: int = 12, seed: int = 7) -> np.ndarray:
    """Inputs of the model: (n, 8) int64."""
    return np.random.default_rng(seed).integers(0, pairs * 8 * width, (samples, 8))


@dataclass(frozen=True)
class Ran:
    """A finished command. `peak_bytes`: most resident memory of it and all it started, together, at one moment."""

    status: int
    peak_bytes: int
    seconds: float
    output: str
    error: str


def run_gauged(command: Sequence[str], *, every_s: float = 0.05, stdin: str = "") -> Ran:
    """Run `command` and watch the resident memory of its whole process tree."""
    started = time.monotonic()
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as child:
        done = threading.Event()
        peak = [0]

        def watch() -> None:
            while not done.wait(every_s):
                peak[0] = max(peak[0], sum(_resident(pid) for pid in _tree(child.pid)))

        gauge = threading.Thread(target=watch)
        gauge.start()
        try:
            output, error = child.communicate(stdin)
        finally:
            done.set()
            gauge.join()
    return Ran(child.returncode, peak[0], time.monotonic() - started, output, error)


def _tree(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(entry.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue  # it ended while we looked
        children.setdefault(parent, []).append(int(entry.parent.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0
