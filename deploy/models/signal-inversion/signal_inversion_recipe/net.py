"""A small dense network: readings in, one temperature out. And its training.

A one-dimensional convolutional network of the same cost was tried and did worse: what counts is the shape of the
whole curve, and a dense layer sees it at once.
"""

from __future__ import annotations

import math
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from signal_inversion_recipe.simulator import READINGS, Recording

__all__ = ["Inverter", "Plan", "export", "fit", "run"]

OPSET = 17
_FALL_C = 4.0
_MIDDLE_C, _SCALE_C = 12.0, 8.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How the training run goes; `rate` falls to zero along a cosine."""

    steps: int
    batch: int
    rate: float
    seed: int


class Inverter(nn.Module):
    """Three dense layers over how the readings fall and where they end; the answer is added to the last reading."""

    def __init__(self, hidden: int = 192) -> None:
        super().__init__()
        self.first = nn.Linear(READINGS, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.third = nn.Linear(hidden, hidden)
        self.head = nn.Linear(hidden, 1)

    def forward(self, signal: Tensor) -> Tensor:
        """(n, 1) degrees Celsius from (n, READINGS)."""
        last = signal[:, -1:]
        x = torch.cat([(signal - last)[:, :-1] / _FALL_C, (last - _MIDDLE_C) / _SCALE_C], dim=1)
        for layer in (self.first, self.second, self.third):
            x = functional.relu(layer(x))
        settled: Tensor = self.head(x) * _SCALE_C + last
        return settled


def fit(model: Inverter, data: Recording, plan: Plan) -> None:
    """Trains in place on the absolute error, leaves the model in eval mode."""
    torch.manual_seed(plan.seed)
    signals, ends = torch.from_numpy(data.signal), torch.from_numpy(data.end)[:, None]
    optimiser = torch.optim.AdamW(model.parameters(), lr=plan.rate, weight_decay=1e-4)
    model.train()
    running = 0.0
    for step in range(plan.steps):
        for group in optimiser.param_groups:
            group["lr"] = plan.rate * 0.5 * (1 + math.cos(math.pi * step / plan.steps))
        rows = torch.randint(len(ends), (plan.batch,))
        loss = functional.l1_loss(model(signals[rows]), ends[rows])
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimiser.step()
        running += (loss.item() - running) / min(step + 1, 200)
        if (step + 1) % 1000 == 0:
            sys.stderr.write(f"  step {step + 1}/{plan.steps}  error {running:.4f}\n")
            sys.stderr.flush()
    model.eval()


def export(model: Inverter) -> onnx.ModelProto:
    """The model as a checked fp32 graph: `signal` (n, READINGS) in, `settled` (n, 1) out."""
    model.eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        torch.onnx.export(
            model,
            (torch.zeros((2, READINGS)),),
            path,
            input_names=["signal"],
            output_names=["settled"],
            dynamic_axes={"signal": {0: "batch"}, "settled": {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
        graph = onnx.load(str(path))
    graph.producer_name, graph.producer_version = "wavegate-signal-inversion", "1"
    onnx.checker.check_model(graph, full_check=True)
    return graph


def run(model: onnx.ModelProto, signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the graph answers in ONNX Runtime, (n, 1) float32."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    answer: NDArray[np.float32] = session.run(["settled"], {"signal": signal})[0]
    return answer
