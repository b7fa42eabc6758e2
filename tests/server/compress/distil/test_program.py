"""The structural step in a whole job: cut, distilled, quantised last; resumed from its cached student; alive after a dead child."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support.distil import needs_distil

needs_distil()

from tests.support.taught import VOCAB, write_taught_bundle  # noqa: E402
from wavegate_server.adapters.files.bundles import open_bundle  # noqa: E402
from wavegate_server.compress.job import Event, JobResult, Options, run_job  # noqa: E402
from wavegate_server.compress.search.distilling import Teaching  # noqa: E402
from wavegate_server.core.compress.budget import parse_budget  # noqa: E402
from wavegate_server.core.compress.recipes import named  # noqa: E402

pytestmark = pytest.mark.timeout(300)  # a job starts some twenty processes, and three of them import torch

BUDGET = "size=-65%,drop=8pt"  # the student meets it quantised only, however fast it is as it is
STUDENT = "layers2-heads2-ffn32"
BROKEN = """
import json, os, signal, sys
job = json.load(sys.stdin)
structure = {"kind": "transformer", "name": "half", "sizes": {}, "parameters": 0.3, "work": 0.2}
if job["kind"] == "student":
    print(json.dumps({"progress": {"epoch": 1, "step": 20, "steps": 90, "loss": 0.5, "best": None}}), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
open(job["target"], "wb").close() if job["kind"] == "teacher" else None
print(json.dumps({"structures": [structure], "tokens": 0}))
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_taught_bundle(tmp_path_factory.mktemp("taught") / "in")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the module: jobs on the same bundle share their steps, as they do for a user."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """One recipe is enough here; and of a graph this small hardly half is weights, which the prediction does not know."""
    monkeypatch.setattr("wavegate_server.core.compress.recipes.RECIPES", (named("int8-dynamic-per-tensor"),))
    monkeypatch.setattr("wavegate_server.core.compress.structures._INT8", 0.8)


def job(bundle: Path, out: Path, cache: Path, events: list[Event], **more: object) -> JobResult:
    options = replace(Options(cache=cache, teaching=Teaching(steps=120)), **more)  # type: ignore[arg-type]
    with open_bundle(bundle) as opened:
        return run_job(opened, parse_budget(BUDGET, opened.spec.metric), out, events.append, options)


class Impatient(list[Event]):
    """Stopped right behind the training."""

    def append(self, event: Event) -> None:
        super().append(event)
        if event.candidate == STUDENT and event.stage == "comparing with the original":
            raise KeyboardInterrupt


def test_a_smaller_structure_is_distilled_and_quantised_last_and_a_job_goes_on_behind_it(
    bundle: Path, cache: Path, tmp_path: Path
) -> None:
    first = Impatient()
    with pytest.raises(KeyboardInterrupt):
        job(bundle, tmp_path / "out", cache, first)
    assert any("epoch" in event.detail and "loss" in event.detail for event in first)
    events: list[Event] = []
    result = job(bundle, tmp_path / "out", cache, events)
    assert not any(event.detail for event in events)  # the student was found done
    rows = {row.recipe: row for row in result.candidates}
    assert rows["int8-dynamic-per-tensor"].reason == "misses size=-65%"
    assert "as cut" in rows[STUDENT].notes[0]
    assert result.chosen is rows[f"{STUDENT}+int8-dynamic-per-tensor"]
    _check_result(tmp_path / "out", bundle)


def _check_result(out: Path, bundle: Path) -> None:
    with open_bundle(out) as written:
        assert written.spec.source is None
        assert written.spec.train is None
        words = written.path("vocab.txt").read_text(encoding="utf-8").splitlines()
        assert set(words) < set(VOCAB)
        graph = onnx.load(str(written.model_path)).graph
    tables = [tensor for tensor in graph.initializer if list(tensor.dims) == [len(words), 32]]
    assert [tensor.data_type for tensor in tables] == [onnx.TensorProto.UINT8]
    assert (out / "model.onnx").stat().st_size < 0.4 * (bundle / "model.onnx").stat().st_size
    plan = json.loads((out / "plan.json").read_text(encoding="utf-8"))
    assert "int8" in plan["nodes"].values()
    assert plan["recipe"].startswith(STUDENT)


def test_a_training_that_is_killed_is_a_row_in_the_report(
    bundle: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_distil.py").write_text(BROKEN, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("wavegate_server.compress.search.distilling._MODULE", "broken_distil")
    events: list[Event] = []
    result = job(bundle, tmp_path / "out", tmp_path / "cache", events)
    assert result.chosen is None
    assert {row.recipe: row.reason for row in result.candidates}["half"].startswith("it crashed (SIGKILL)")
    assert any(event.detail == "epoch 1, step 20 of 90, loss 0.5000" for event in events)


def test_bad_train_sets_are_a_row_and_the_job_goes_on(bundle: Path, cache: Path, tmp_path: Path) -> None:
    from tests.support.bundles import relist

    source = tmp_path / "in"
    with open_bundle(bundle) as opened:
        for name in opened.spec.files:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(opened.path(name).read_bytes())
    (source / "bundle.yaml").write_bytes((bundle / "bundle.yaml").read_bytes())
    np.savez(source / "train.npz", allow_pickle=False, **{"input.image": np.zeros((4, 3)), "label": np.zeros(4)})
    relist(source)
    result = job(source, tmp_path / "out", cache, [])
    row = {row.recipe: row.reason for row in result.candidates}["distilled"]
    assert "text" in row
    assert result.chosen is None


def test_without_the_step_the_bundle_is_only_quantised(bundle: Path, cache: Path, tmp_path: Path) -> None:
    result = job(bundle, tmp_path / "out", cache, [], structural=False)
    assert [row.recipe for row in result.candidates] == ["original", "int8-dynamic-per-tensor"]
