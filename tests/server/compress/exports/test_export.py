"""Exports: converted elsewhere, run again, compared before anything is written; refused with what to do where that cannot be."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support.bundles import write_pair_bundle
from tests.support.graphs import conv_net, stripes, write_conv_bundle
from wavegate_server.cli.main import run
from wavegate_server.compress.exports import export as exports
from wavegate_server.compress.exports.export import REFUSED, TARGETS, environment_of, export
from wavegate_server.compress.process.step_cache import default_directory
from wavegate_shared.errors import UsageError

ECHO = """
import json, shutil, socket, sys
import numpy as np, onnxruntime as ort
job = json.load(sys.stdin)
try:
    socket.create_connection(("127.0.0.1", 9), timeout=1)
    raise SystemExit("the network is there")
except OSError as error:
    reached = str(error)
shutil.copy(job["source"], job["target"] + "/model.xml")
session = ort.InferenceSession(job["target"] + "/model.xml", providers=["CPUExecutionProvider"])
feeds = np.load(job["feeds"])
got = {}
for sample in sorted({name.split(".")[0] for name in feeds.files}):
    outputs = session.run(None, {name: feeds[f"{sample}.{name}"] for name in job["inputs"]})
    got.update({f"{sample}.{place}": array + SHIFT for place, array in enumerate(outputs)})
np.savez(job["got"], **got)
print(json.dumps({"tool": "echo 1", "files": ["model.xml"], "p50_ms": 1.0, "notes": [reached]}))
"""


@pytest.fixture
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Environments in which `openvino` is a worker that hands the ONNX file back."""
    worker = tmp_path / "foreign"
    worker.mkdir()
    (worker / "openvino_worker.py").write_text(ECHO.replace("SHIFT", "0.25"), encoding="utf-8")
    monkeypatch.setattr(exports, "_FOREIGN", worker)
    place = environment_of("openvino", tmp_path / "environments")
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n', encoding="utf-8")
    (place / "bin" / "python").chmod(0o755)
    (place / "ready").touch()
    return tmp_path / "environments"


def test_the_result_is_run_again_and_compared_before_it_is_written(tmp_path: Path, echo: Path) -> None:
    source = write_pair_bundle(tmp_path / "in")
    made = export(source, "openvino", tmp_path / "out", environments=echo)
    assert (made.tool, made.samples, made.agreement) == ("echo 1", 16, 1.0)
    assert made.difference == pytest.approx(0.25, abs=1e-5)
    assert made.size_bytes == (tmp_path / "out" / "model.xml").stat().st_size


def test_a_bare_file_is_compared_on_given_inputs(tmp_path: Path, echo: Path) -> None:
    onnx.save(conv_net(), str(tmp_path / "net.onnx"))
    np.savez(tmp_path / "x.npz", image=stripes(4, 1)[0])
    made = export(tmp_path / "net.onnx", "openvino", tmp_path / "out", inputs=tmp_path / "x.npz", environments=echo)
    assert made.samples == 4
    with pytest.raises(UsageError, match="--inputs"):
        export(tmp_path / "net.onnx", "openvino", tmp_path / "other", environments=echo)


def test_a_result_that_is_not_finite_is_not_written(tmp_path: Path, echo: Path) -> None:
    script = tmp_path / "foreign" / "openvino_worker.py"
    script.write_text(ECHO.replace("SHIFT", "np.nan"), encoding="utf-8")
    with pytest.raises(UsageError, match="not finite"):
        export(write_conv_bundle(tmp_path / "in", golden=20), "openvino", tmp_path / "out", environments=echo)
    assert not (tmp_path / "out").exists()


def test_a_converter_that_fails_says_why(tmp_path: Path, echo: Path) -> None:
    script = tmp_path / "foreign" / "openvino_worker.py"
    script.write_text("raise SystemExit('no such operator')", encoding="utf-8")
    with pytest.raises(UsageError, match="no such operator") as caught:
        export(write_conv_bundle(tmp_path / "in", golden=20), "openvino", tmp_path / "out", environments=echo)
    assert caught.value.code == "bundle_invalid"


@pytest.mark.parametrize("target", sorted(REFUSED))
def test_what_cannot_be_checked_here_is_refused_with_its_command(
    target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_conv_bundle(tmp_path / "in", golden=20)
    assert run(["model", "export", str(source), "--to", target, "--json"]) == 1
    problem = json.loads(capsys.readouterr().err)
    assert problem["code"] == "setup"
    assert {"tensorrt": "trtexec", "coreml": "coremltools"}[target] in problem["detail"]


def test_bad_requests_are_refused_before_anything_runs(tmp_path: Path) -> None:
    source = write_conv_bundle(tmp_path / "in", golden=20)
    with pytest.raises(UsageError, match="openvino, tflite, tensorrt, coreml"):
        export(source, "ncnn", tmp_path / "out", environments=tmp_path)
    with pytest.raises(UsageError, match="no `source`"):
        export(source, "tflite", tmp_path / "out", environments=tmp_path)
    with pytest.raises(UsageError, match="holds none"):
        export(source / "model.onnx", "tflite", tmp_path / "out", environments=tmp_path)
    with pytest.raises(UsageError, match="--install") as caught:
        export(source, "openvino", tmp_path / "out", environments=tmp_path)
    assert caught.value.code == "setup"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").touch()
    with pytest.raises(UsageError, match="not empty"):
        export(source, "openvino", tmp_path / "out", environments=tmp_path)


@pytest.mark.parametrize("target", [name for name in TARGETS if name not in REFUSED])
def test_the_real_converter(target: str, tmp_path: Path) -> None:
    """Runs where `wavegate model export --to TARGET --install` was run before: the converters are large."""
    kept = default_directory()
    environments = kept.with_name(f"{kept.name}-converters")
    if target == "tflite" or not (environment_of(target, environments) / "ready").is_file():
        pytest.skip(f"the converter for {target} is not installed, or needs a bundle with a torch module")
    made = export(write_conv_bundle(tmp_path / "in", golden=20), target, tmp_path / "out", environments=environments)
    assert made.agreement == 1.0
    assert made.difference < 1e-3 * made.largest
