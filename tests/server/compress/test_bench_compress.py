"""The compress bench on one tiny model, and the eye of its scorer: a result that is not as stated is seen."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.bench._compress_scorer import Unseen, score
from tests.bench.compress import Case, _slower, _wrong
from tests.support.graphs import stripes, write_conv_bundle
from wavegate_server.compress.search.report import Candidate, JobResult
from wavegate_server.core.compress.budget import Measured
from wavegate_server.core.compress.paired import Drop
from wavegate_shared.metrics import Metric

CASE = Case("net", Path(), Path(), "size=-50%,drop=2pt", 0.02)
SEEN = Unseen(1000, 0.95, 0.945, 0.005, 0.004, 0.99, 0.25, 2.0, finite=True)


def stated() -> JobResult:
    drop = Drop(0.004, -0.002, 0.01, 1000, 9)
    measured = Measured(250, 1000, 1.0, 2.0, 1.5, 50.0, Metric("accuracy"), 0.946, 0.95, drop)
    row = Candidate("int8", Path("x"), measured, 1.0, 0.99, [], [], offered=True, reason="")
    return JobResult([row], row, row, [], 1000, [], "", 1.0, 0)


def test_a_result_as_stated_is_none_of_its_business() -> None:
    assert _wrong(CASE, stated(), SEEN, down=False) == ""
    assert _slower(stated(), SEEN) == ""


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (replace(SEEN, drop=0.03), "the budget allowed 0.02"),
        (replace(SEEN, drop=0.015), "stated were 0.0040"),
        (replace(SEEN, size_ratio=0.3), "size"),
        (replace(SEEN, finite=False), "not finite"),
    ],
)
def test_each_way_of_not_being_as_stated_counts(seen: Unseen, words: str) -> None:
    assert words in _wrong(CASE, stated(), seen, down=False)


def test_a_speed_that_is_not_as_stated_counts() -> None:
    assert "stated 2.00x, is 0.90x" in _slower(stated(), replace(SEEN, speed=0.9))


def test_the_scorer_sees_a_broken_file(tmp_path: Path) -> None:
    """The same bundle with its head turned round: agreement and accuracy fall."""
    images, labels = stripes(120, 5)
    np.savez(tmp_path / "unseen.npz", allow_pickle=False, **{"input.image": images, "label": labels})
    original, result = write_conv_bundle(tmp_path / "a", golden=20), write_conv_bundle(tmp_path / "b", golden=20)
    same = score(original / "model.onnx", original, result, tmp_path / "unseen.npz")
    assert (same.drop, same.agreement, same.size_ratio, same.finite) == (0.0, 1.0, 1.0, True)
    model = onnx.load(str(result / "model.onnx"))
    head = next(tensor for tensor in model.graph.initializer if tensor.name == "head")
    head.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(head)[:, ::-1].copy(), "head"))
    onnx.save(model, str(result / "model.onnx"))
    broken = score(original / "model.onnx", original, result, tmp_path / "unseen.npz")
    assert broken.drop > 0.5
    assert broken.agreement < 0.5


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_small_case_runs_and_ships_nothing_silently_wrong() -> None:
    """Half a minute alone: eight candidates, each in processes of its own. Speeds are the bench's to judge, on a quiet machine."""
    command = [sys.executable, "-m", "tests.bench", "compress", "--quick", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    figures = json.loads(done.stdout)["figures"]
    assert (figures["models"], figures["silent_failures"] - figures["slower_than_stated"]) == (1, 0)
    assert {f"stripes.ptq.{key}" for key in ("size_ratio", "speed_ratio", "drop_pt", "agreement", "seconds")} <= set(
        figures
    )
    assert figures["stripes.ptq.size_ratio"] < 0.5
