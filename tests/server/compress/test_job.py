"""The compression job on a real small model: candidates made, measured, judged; nothing offered that misses the budget."""

from pathlib import Path

import pytest

from tests.support.bundles import relist, write_pair_bundle
from wavegate_server.adapters.files.bundles import open_bundle
from wavegate_server.adapters.files.objects import file_sha256
from wavegate_server.compress.job import JobResult, run_job
from wavegate_server.compress.measure.run import score_model
from wavegate_server.core.compress.budget import parse_budget
from wavegate_server.core.compress.recipes import named
from wavegate_shared.errors import UsageError

pytestmark = pytest.mark.timeout(240)  # each job starts a dozen processes


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("int8-dynamic-per-channel", "int8-dynamic-per-tensor")
    monkeypatch.setattr("wavegate_server.core.compress.recipes.RECIPES", tuple(named(name) for name in names))


def compress(directory: Path, budget: str, out: Path) -> JobResult:
    with open_bundle(directory) as bundle:
        return run_job(bundle, parse_budget(budget, bundle.spec.metric), out)


def test_a_candidate_within_the_budget_becomes_a_bundle_with_its_table_and_parent(tmp_path: Path) -> None:
    source = write_pair_bundle(tmp_path / "in")
    result = compress(source, "drop=5pt,size=-10%", tmp_path / "out")
    assert result.chosen is not None
    assert [row.name for row in result.comparison] == [
        "size",
        "latency p50",
        "peak memory",
        "CPU time per inference",
        "accuracy",
    ]
    with open_bundle(tmp_path / "out") as made:
        assert made.spec.recipe == result.chosen.recipe
        assert made.spec.parent is not None
        assert made.spec.parent.sha256 == file_sha256(source / "model.onnx")
        assert made.spec.comparison == result.comparison
        score = score_model(made.model_path, made.path("golden.npz"), made.spec, made.directory)
        assert result.chosen.measured is not None
        assert score.value == result.chosen.measured.value


def test_when_nothing_meets_the_budget_nothing_is_written(tmp_path: Path) -> None:
    result = compress(write_pair_bundle(tmp_path / "in"), "size=-99%", tmp_path / "out")
    assert result.chosen is None
    assert not (tmp_path / "out").exists()
    assert all(candidate.reason == "misses size=-99%" for candidate in result.candidates[1:])
    assert result.candidates[0].reason == "the original; misses size=-99%"
    assert [verdict.met for verdict in result.judged.verdicts] == [False]


def test_too_few_samples_to_prove_the_budget_is_no_success(tmp_path: Path) -> None:
    result = compress(write_pair_bundle(tmp_path / "in"), "drop=0.1pt,size=-10%", tmp_path / "out")
    assert result.chosen is None
    assert {candidate.measured.drop.value for candidate in result.candidates if candidate.measured} == {0.0}
    assert "not enough samples to prove it" in result.judged.words[0]


def test_a_directory_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x", encoding="utf-8")
    with pytest.raises(UsageError, match="not empty") as caught:
        compress(write_pair_bundle(tmp_path / "in"), "drop=5pt", tmp_path / "out")
    assert caught.value.code == "conflict"
    assert (tmp_path / "out" / "precious").read_text(encoding="utf-8") == "x"


def test_an_original_that_does_not_run_is_refused(tmp_path: Path) -> None:
    source = write_pair_bundle(tmp_path / "in")
    (source / "golden.npz").write_bytes(b"PK\x03\x04 no npz")
    relist(source)
    with pytest.raises(UsageError) as caught:
        compress(source, "drop=5pt", tmp_path / "out")
    assert caught.value.code == "bundle_invalid"
