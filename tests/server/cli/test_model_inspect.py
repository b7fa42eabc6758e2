"""`wavegate model` on a bare ONNX file: no server, no token."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support.graphs import conv_net, stripes
from wavegate_server.cli.main import run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(conv_net(batch="n"), str(tmp_path / "net.onnx"))
    return tmp_path / "net.onnx"


def test_inspect_says_what_it_is_and_what_will_be_tried(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["model", "inspect", str(model)]) == 0
    shown = capsys.readouterr().out
    assert "cnn, classification; opset 17" in shown
    assert "image[0] = 1" in shown
    assert "int8-static-per-channel" in shown
    assert "dynamic int8 makes convolutions slower" in shown


def test_inspect_as_json(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["model", "inspect", str(model), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["family"], found["opset"], found["flops"]) == ("cnn", 17, 2 * found["macs"])
    assert {"parameters", "dynamic", "recipes", "skipped", "blocks", "operators"} <= set(found)


def test_what_is_no_model_is_an_error_with_a_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.onnx").write_bytes(b"nothing of the kind")
    assert run(["model", "inspect", str(tmp_path / "net.onnx"), "--json"]) == 1
    assert json.loads(capsys.readouterr().err)["code"] == "bundle_invalid"


def test_a_bundle_of_a_bare_file(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(model.parent / "x.npz", image=stripes(40, 1)[0])
    assert run(["model", "import", str(model), "--inputs", str(model.parent / "x.npz"), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["metric"], made["samples"]) == ("agreement", {"golden": 40})
    assert (Path(made["bundle"]) / "bundle.yaml").is_file()


def test_a_bare_file_without_inputs_is_told_what_to_add(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["model", "import", str(model)]) == 2
    assert "--inputs" in capsys.readouterr().err


def test_a_model_above_a_limit_of_its_class_is_warned_of(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAVEGATE_CLASS_LIMITS", '{"tiny": {"parameters": 100, "mflops": 0.1}}')
    assert run(["model", "inspect", str(model), "--for", "tiny"]) == 0
    shown = capsys.readouterr().out
    assert "above the limit of 100 for class tiny" in shown
    assert "MFLOPs an inference, above the limit" in shown
    assert run(["model", "inspect", str(model), "--for", "large", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["warnings"] == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.h5", "tf2onnx.convert --opset 17 --output model.onnx --saved-model saved"),
        ("model.keras", "export('saved')"),
        ("model.pb", "--graphdef model.pb --inputs"),
        ("model.tflite", "--tflite model.tflite"),
        ("saved/saved_model.pb", "--saved-model saved"),
        ("model.pt", "--torch file.py:function --weights model.pt"),
    ],
)
def test_a_model_of_another_framework_is_refused_with_the_way_to_convert_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, words: str
) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"anything")
    given = file.parent if file.parent != tmp_path else file
    assert run(["model", "import", str(given), "--json"]) == 1
    problem = json.loads(capsys.readouterr().err)
    assert problem["code"] == "format_unsupported"
    assert words in problem["detail"]


@pytest.mark.parametrize(("head", "words"), [(b"\x89HDF\r\n\x1a\n", "Keras"), (b"\x1c\0\0\0TFL3", "TensorFlow Lite")])
def test_it_is_told_by_its_first_bytes_whatever_its_name(
    model: Path, capsys: pytest.CaptureFixture[str], head: bytes, words: str
) -> None:
    model.write_bytes(head + b"\0" * 64)
    np.savez(model.parent / "x.npz", image=stripes(40, 1)[0])
    assert run(["model", "import", str(model), "--inputs", str(model.parent / "x.npz"), "--json"]) == 1
    assert words in json.loads(capsys.readouterr().err)["detail"]
