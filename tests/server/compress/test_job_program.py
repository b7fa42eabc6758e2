"""The process of a job on the server: what a bundle brings along is run only where the operator said so."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.graphs import write_conv_bundle
from wavegate_server.adapters.files.bundles import Bundle, write_bundle
from wavegate_server.compress import job_program
from wavegate_server.compress.job import JobResult, Options
from wavegate_server.compress.process.job_child import Work
from wavegate_server.compress.search.report import Candidate


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    directory = write_conv_bundle(tmp_path / "b", golden=4, calib=4)
    (directory / "source").mkdir()
    for name in ("source/net.py", "source/w.safetensors"):
        (directory / name).write_text("anything", encoding="utf-8")
    names = ("model.onnx", "golden.npz", "calib.npz", "source/net.py", "source/w.safetensors")
    document: dict[str, Any] = {
        "schema": 1,
        "model": "stripes",
        "task": "image-classification",
        "model_file": "model.onnx",
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 16, 16]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 4]}],
        "metric": {"name": "accuracy"},
        "golden": {"file": "golden.npz", "floor": 0.5},
        "source": {"factory": "source/net.py:build", "weights": "source/w.safetensors"},
    }
    write_bundle(directory, document, {name: directory / name for name in names})
    return directory


@pytest.mark.parametrize("allowed", [False, True])
def test_a_torch_module_is_run_only_where_the_operator_said_so(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: bool
) -> None:
    seen: list[Options] = []

    def run_job(_bundle: Bundle, _budget: Any, _out: Path, _progress: Any, options: Options) -> JobResult:
        seen.append(options)
        row = Candidate.failed("original", "nothing was measured here")
        return JobResult(
            candidates=[row], chosen=None, judged=row, comparison=[], samples=4, notes=[], device_class="", seconds=0.0,
            cached_steps=0,
        )  # fmt: skip

    monkeypatch.setattr(job_program, "run_job", run_job)
    monkeypatch.setenv("WAVEGATE_RUN_SOURCE", str(allowed).lower())
    work = Work(
        parent=os.getpid(), bundle=str(bundle), budget="drop=2pt", out=str(tmp_path / "out"),
        result=str(tmp_path / "result.json"), cache=str(tmp_path / "cache"), time_s=60.0,
    )  # fmt: skip
    answer = job_program._run(work)
    assert [options.structural for options in seen] == [allowed]
    assert any("does not run a bundle's torch module" in note for note in answer["notes"]) is not allowed
