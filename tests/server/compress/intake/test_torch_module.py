"""`wavegate model import --torch` from the command line: what becomes a bundle, and what is refused with nothing written."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.distil import needs_distil
from wavegate_server.adapters.files.bundles import open_bundle
from wavegate_server.cli.main import run

needs_distil()

import torch  # noqa: E402

from wavegate_server.compress.torch_module import load  # noqa: E402

NET = """
import socket
from torch import nn

class Net(nn.Module):
    def __init__(self, width, mode):
        super().__init__()
        self.table = nn.Embedding(20, width)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(width, 3)
        self.mode = mode

    def forward(self, ids, mask):
        y = self.head(self.drop((self.table(ids) * mask[..., None]).sum(1)))
        return y + float(ids.sum()) * 0.1 if self.mode == "values" else y

def build(width=8, mode=""):
    if mode == "network":
        socket.create_connection(("127.0.0.1", 9), 1)
    return Net(width, mode)
"""


@pytest.fixture
def working(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET, encoding="utf-8")
    torch.manual_seed(3)
    shapes = {"table.weight": (20, 8), "head.weight": (3, 8), "head.bias": (3,)}
    torch.save({name: torch.randn(shape) for name, shape in shapes.items()}, tmp_path / "w.pt")
    rng = np.random.default_rng(1)
    ids, mask = rng.integers(0, 20, (60, 7)), np.ones((60, 7))
    np.savez(tmp_path / "x.npz", mask=mask, ids=ids)
    more = rng.integers(0, 20, (50, 7))
    train = {"ids": np.concatenate([ids[:10], more]), "mask": np.ones((60, 7)), "label": rng.integers(0, 3, 60)}
    np.savez(tmp_path / "t.npz", **train)  # type: ignore[arg-type]  # numpy's stub wants a flag there
    return tmp_path


def bring(capsys: pytest.CaptureFixture[str], *more: str, weights: str = "w.pt") -> tuple[int, dict[str, Any]]:
    given = ["--torch", "net.py:build", "--weights", weights, "--inputs", "x.npz", "--json", *more]
    status = run(["model", "import", *given])
    shown = capsys.readouterr()
    return status, json.loads(shown.err if status else shown.out)


def test_a_bundle_with_its_source_its_training_set_and_its_parity(
    working: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, made = bring(
        capsys, "--train", "t.npz", "--dynamic", "ids:1,mask:1", "--outputs", "logits", "--name", "Tiny"
    )
    assert (status, made["metric"], made["value"], made["samples"]["train"]) == (0, "agreement", 1.0, 50)
    assert made["parity"]["max_abs"] < 1e-5
    assert (made["parity"]["agreement"], made["parity"]["samples"]) == (1.0, 60)
    assert any("10 training samples left out" in note for note in made["notes"])
    with open_bundle(working / "Tiny-bundle") as bundle:
        spec = bundle.spec
        assert (spec.model, [tensor.name for tensor in spec.inputs]) == ("tiny", ["ids", "mask"])
        assert [(tensor.name, tensor.shape) for tensor in spec.outputs] == [("logits", [-1, 3])]
        assert spec.source is not None
        assert spec.source.weights == "source/weights.safetensors"
        module = load.load(bundle.directory, spec.source)
        held = torch.load(working / "w.pt", weights_only=True)
        assert torch.equal(module.state_dict()["head.weight"], held["head.weight"])


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--options", '{"mode": "values"}'], "bundle_invalid", "computes something else"),
        (["--options", '{"mode": "network"}'], "bundle_invalid", "no network in here"),
        (["--options", '{"width": 9}'], "bundle_invalid", "do not fit"),
    ],
)
def test_a_module_that_cannot_be_trusted_leaves_nothing(
    working: Path, capsys: pytest.CaptureFixture[str], more: list[str], code: str, words: str
) -> None:
    status, problem = bring(capsys, *more)
    assert (status, problem["code"]) == (1, code)
    assert words in problem["detail"]
    assert not (working / "net-bundle").exists()


def test_weights_that_are_a_program_are_refused(working: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(torch.nn.Linear(2, 2), working / "whole.pt")  # the usual mistake: the module, not its state dict
    status, problem = bring(capsys, weights="whole.pt")
    assert (status, problem["code"]) == (1, "weights_unsafe")
    assert "state_dict()" in problem["action"]


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        (["--opset", "12"], 2, "quantising needs 13"),
        (["--options", "width=8"], 2, "not JSON"),
        (["--options", "[1]"], 2, "JSON object"),
        (["--dynamic", "ids"], 2, "INPUT:AXIS"),
        (["x.npz"], 2, "not both"),
        (["--metric", "beauty"], 2, "not known"),
        (["--metric", "error_bound"], 2, "error_bound:5%"),
    ],
)
def test_a_wrong_command_line(
    working: Path, capsys: pytest.CaptureFixture[str], more: list[str], status: int, words: str
) -> None:
    given = ["--torch", "net.py:build", "--weights", "w.pt", "--inputs", "x.npz", *more]
    assert run(["model", "import", *given]) == status
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (working / "net-bundle").exists()


def test_without_torch_it_says_what_to_install(
    working: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wavegate_server.compress.intake.torch_module.importlib.util.find_spec", lambda _name: None)
    status, problem = bring(capsys)
    assert (status, problem["code"]) == (1, "setup")
    assert "[distil]" in problem["detail"]
