"""The life of a job: resumed, cancelled, out of time, repaired; originals it refuses; metrics it judges by."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from tests.support.bundles import rewrite_spec, write_pair_bundle
from tests.support.graphs import conv_net, regression_net, sensor_samples, write_bundle_of, write_conv_bundle
from wavegate_server.adapters.files.bundles import open_bundle
from wavegate_server.compress.job import Event, JobResult, Options, run_job
from wavegate_server.compress.search.report import as_json
from wavegate_server.core.compress.budget import parse_budget
from wavegate_server.core.compress.recipes import named
from wavegate_shared.errors import UsageError

pytestmark = pytest.mark.timeout(300)  # a job starts some twenty processes


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the module: jobs on the same bundle share their steps, as they do for a user."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two recipes a family are enough here: what each recipe does is tested elsewhere."""
    names = ("int8-dynamic-per-channel", "int8-static-per-channel", "float16")
    monkeypatch.setattr("wavegate_server.core.compress.recipes.RECIPES", tuple(named(name) for name in names))


def job(
    source: Path, budget: str, out: Path, cache: Path, *, events: list[Event] | None = None, **more: object
) -> JobResult:
    seen = events if events is not None else []
    options = replace(Options(cache=cache), **more)  # type: ignore[arg-type]
    with open_bundle(source) as bundle:
        return run_job(bundle, parse_budget(budget, bundle.spec.metric), out, seen.append, options)


def test_a_job_that_was_cancelled_goes_on_from_its_finished_steps(tmp_path: Path, cache: Path) -> None:
    source = write_pair_bundle(tmp_path / "in")

    class Impatient(list[Event]):
        def append(self, event: Event) -> None:
            if event.stage == "racing the candidates against the original":
                raise KeyboardInterrupt
            super().append(event)

    with pytest.raises(KeyboardInterrupt):
        job(source, "size=-10%,drop=5pt", tmp_path / "out", cache, events=Impatient())
    assert not (tmp_path / "out").exists()
    events: list[Event] = []
    result = job(source, "size=-10%,drop=5pt", tmp_path / "out", cache, events=events, device_class="pi4")
    assert result.cached_steps >= 6
    assert result.chosen is not None
    assert {event.candidate for event in events} >= {"", "int8-dynamic-per-channel"}
    assert events[-1].stage == "writing the result bundle"
    assert str(Event("judging", "a", "b")) == "a: judging · best so far b"
    answer = json.loads(json.dumps(as_json(result, tmp_path / "out")))
    assert set(answer["verdicts"][0]) == {"item", "met", "value", "low", "high"}
    wanted = {"recipe", "size_bytes", "p50_ms", "metric", "drop_pt", "agreement", "offered", "reason"}
    assert all(wanted <= set(row) for row in answer["candidates"])
    assert (answer["measured_on"], answer["for"], answer["candidates"][0]["recipe"]) == ("host only", "pi4", "original")
    plan = json.loads((tmp_path / "out" / "plan.json").read_text(encoding="utf-8"))
    assert set(plan["nodes"].values()) <= {"int8", "int4", "float32", "float16", "int8 stored, float32 computed"}


def test_models_too_large_to_be_loaded_together_race_in_pairs(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wavegate_server.compress.search.candidates.RACE_BYTES", 0)
    result = job(write_pair_bundle(tmp_path / "in"), "size=-10%,drop=5pt", tmp_path / "out", cache)
    assert result.chosen is not None
    assert len({row.measured.p50_before for row in result.candidates if row.measured}) == 1


def test_out_of_time_is_a_reason_not_an_error(tmp_path: Path) -> None:
    source = write_pair_bundle(tmp_path / "in")
    with pytest.raises(UsageError, match=r"time of the job was up|did not finish"):
        job(source, "size=-10%", tmp_path / "out", tmp_path / "cache", time_s=0.5)


def test_the_original_is_a_legal_answer(tmp_path: Path, cache: Path) -> None:
    source = write_pair_bundle(tmp_path / "in")
    result = job(source, "size<=1MB,speed=0.5x,drop=0.1pt", tmp_path / "out", cache)
    assert result.chosen is not None
    assert result.chosen.recipe == "original"
    assert not (tmp_path / "out").exists()


def test_a_block_that_int8_ruins_is_left_float(tmp_path: Path, cache: Path) -> None:
    source = write_conv_bundle(tmp_path / "in", model=conv_net(wild=True))
    result = job(source, "size=-50%,drop=3pt,speed=0.1x", tmp_path / "out", cache)
    rows = {row.recipe: row for row in result.candidates}
    broken = [row for row in rows.values() if row.measured and row.measured.value < 0.5]
    assert broken, "the net is made so that int8 alone ruins it"
    assert all(not row.offered for row in broken)
    repaired = [row for name, row in rows.items() if "-keep" in name]
    assert any(row.measured and row.measured.drop.value <= 0.01 and "conv2" in row.float_nodes for row in repaired)


def test_a_quantised_model_has_nothing_to_do(tmp_path: Path, cache: Path) -> None:
    model = conv_net()
    scale = [
        numpy_helper.from_array(np.array(0.05, np.float32), "s"),
        numpy_helper.from_array(np.array(0, np.int8), "z"),
    ]
    model.graph.initializer.extend(scale)
    model.graph.node[-1].output[0] = "raw"
    model.graph.node.append(helper.make_node("QuantizeLinear", ["raw", "s", "z"], ["q"]))
    model.graph.node.append(helper.make_node("DequantizeLinear", ["q", "s", "z"], ["logits"]))
    result = job(write_conv_bundle(tmp_path / "in", model=model), "size=-50%", tmp_path / "out", cache)
    assert result.chosen is None
    assert "already quantised: nothing to do" in result.notes
    assert [row.recipe for row in result.candidates] == ["original"]


def test_an_original_with_nan_is_refused(tmp_path: Path, cache: Path) -> None:
    model = conv_net()
    head = next(tensor for tensor in model.graph.initializer if tensor.name == "bias")
    head.CopyFrom(numpy_helper.from_array(np.full(4, np.nan, np.float32), "bias"))
    with pytest.raises(UsageError, match="not finite") as caught:
        job(write_conv_bundle(tmp_path / "in", model=model), "size=-50%", tmp_path / "out", cache)
    assert caught.value.code == "bundle_invalid"


def test_a_regression_within_its_error_bound(tmp_path: Path, cache: Path) -> None:
    source = write_bundle_of(tmp_path / "in", regression_net(), *sensor_samples(300, 2), sensor_samples(64, 3)[0])
    result = job(source, "size=-30%,error=+20%", tmp_path / "out", cache)
    assert result.chosen is not None
    assert result.chosen.measured is not None
    assert result.chosen.measured.drop.high <= 0.2 * result.chosen.measured.value_before


@pytest.mark.parametrize("name", ["f1", "auc"])
def test_metrics_of_the_whole_set_have_an_interval(tmp_path: Path, cache: Path, name: str) -> None:
    source = write_pair_bundle(tmp_path / "in")
    rewrite_spec(source, metric={"name": name})
    result = job(source, "drop=40pt,size=-10%", tmp_path / "out", cache)
    measured = result.judged.measured
    assert measured is not None
    assert measured.value_before == 1.0
    assert measured.drop.high > 0.0


CLOSE = "import numpy\ndef close(outputs, labels):\n    return float(numpy.mean([o.argmax() == l for o, l in zip(outputs, labels)]))\n"


def test_a_metric_of_ones_own_judges_any_subset(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "mine.py").write_text(CLOSE, encoding="utf-8")
    source = write_pair_bundle(tmp_path / "in")
    result = job(source, "drop=20pt,size=-10%", tmp_path / "out", cache, entry=f"{tmp_path / 'mine.py'}:close")
    assert result.chosen is not None
    assert result.chosen.measured is not None
    assert result.chosen.measured.value_before == 1.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def close(outputs, labels):\n    raise ZeroDivisionError('mine')\n", "ZeroDivisionError"),
        ("def close(outputs, labels):\n    return float('nan')\n", "any subset"),
        ("x = 1\n", "no function"),
        ("raise SystemError('at import')\n", "at import"),
    ],
)
def test_a_metric_that_raises_is_told_and_writes_nothing(tmp_path: Path, cache: Path, text: str, words: str) -> None:
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    source = write_pair_bundle(tmp_path / "in")
    with pytest.raises(UsageError, match=words):
        job(source, "drop=20pt", tmp_path / "out", cache, entry=f"{tmp_path / 'mine.py'}:close")
    assert not (tmp_path / "out").exists()
