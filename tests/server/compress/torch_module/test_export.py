"""A torch module as ONNX: what is exported computes the same, for one sample and for many, or is refused."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support.distil import needs_distil
from wavegate_server.compress.measure.samples import Feed
from wavegate_shared.errors import UsageError

needs_distil()

import torch  # noqa: E402
from torch import nn  # noqa: E402

from wavegate_server.compress.torch_module import export as torch_module_export  # noqa: E402
from wavegate_server.compress.torch_module.export import Names, export  # noqa: E402

NAMES = Names(["x"], ["y"], {"x": {0: "n"}, "y": {0: "n"}})


def feeds(samples: int = 8, width: int = 6) -> list[Feed]:
    rng = np.random.default_rng(2)
    return [{"x": rng.normal(size=(1, width)).astype(np.float32)} for _ in range(samples)]


class Net(nn.Module):
    """A head behind dropout. `mode` picks what is wrong with it."""

    def __init__(self, mode: str = "") -> None:
        super().__init__()
        torch.manual_seed(1)
        self.mode = mode
        self.body = nn.Linear(6, 5)
        self.drop = nn.Dropout(0.5)
        self.hidden = [nn.Sequential(nn.Dropout(0.5))]  # a plain list: no .eval() reaches it

    def forward(self, x: torch.Tensor) -> object:
        y = self.drop(self.body(x))
        if self.mode == "hidden":
            y = self.hidden[0](y)
        if self.mode == "function":
            y = nn.functional.dropout(y, 0.5, training=True)
        if self.mode == "values":
            y = y * 2 if float(x.sum()) > 0 else y
        if self.mode == "batch":
            y = y.reshape(x.shape[0], 5) + torch.arange(float(int(x.shape[0])))[:, None]
        if self.mode == "mapping":
            return {"z": y[:, :1], "y": y}
        return (y, y[:, :2]) if self.mode == "two" else y


def test_a_module_in_train_mode_is_exported_in_eval_mode(tmp_path: Path) -> None:
    net = Net().train()
    assert export(net, feeds(), NAMES, tmp_path / "m.onnx") < 1e-5
    assert not any(part.training for part in net.modules())
    model = onnx.load(str(tmp_path / "m.onnx"))
    assert [node.op_type for node in model.graph.node] == ["Gemm"]
    assert (model.opset_import[0].version, [p.name for p in tmp_path.iterdir()]) == (17, ["m.onnx"])


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("hidden", "twice with a difference of"),
        ("function", "twice with a difference of"),
        ("values", "computes something else"),
        ("two", "gives Tensor, Tensor; the outputs are y"),
    ],
)
def test_what_would_compute_something_else_is_refused_and_not_written(tmp_path: Path, mode: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        export(Net(mode), feeds(), NAMES, tmp_path / "m.onnx")
    assert caught.value.code == "bundle_invalid"
    assert not list(tmp_path.iterdir())


def test_outputs_come_in_order_also_by_name(tmp_path: Path) -> None:
    names = Names(["x"], ["y", "z"], NAMES.axes)
    export(Net("mapping"), feeds(), names, tmp_path / "m.onnx")
    assert [value.name for value in onnx.load(str(tmp_path / "m.onnx")).graph.output] == ["y", "z"]


def test_names_and_axes_are_those_of_the_original(tmp_path: Path) -> None:
    export(Net(), feeds(), NAMES, tmp_path / "a.onnx")
    names = Names.of(tmp_path / "a.onnx")
    assert names == NAMES
    fixed = Names(["x"], ["y"], {})
    export(Net(), feeds(), fixed, tmp_path / "b.onnx", opset=15)
    assert Names.of(tmp_path / "b.onnx") == Names(["x"], ["y"], {"x": {}, "y": {}})
    assert onnx.load(str(tmp_path / "b.onnx")).opset_import[0].version == 15


def test_a_batch_size_baked_in_by_the_trace_is_found(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"does not run|computes something else"):
        export(Net("batch"), feeds(), NAMES, tmp_path / "m.onnx")


def test_a_module_and_a_file_of_other_weights_are_told_apart(tmp_path: Path) -> None:
    export(Net(), feeds(), NAMES, tmp_path / "m.onnx")
    other = Net().eval()
    with torch.no_grad():
        other.body.weight[0, 0] += 0.5
    parity = torch_module_export.compare(other, tmp_path / "m.onnx", feeds(), NAMES)
    assert not parity.holds
    assert 0.05 < parity.max_abs < 5
    assert parity.samples == 8
