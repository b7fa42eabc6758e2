"""One student, made in this process: better than what was only cut, stopped early within the budget, and bad train sets refused."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.distil import needs_distil

needs_distil()

import onnx  # noqa: E402
import torch  # noqa: E402

from tests.support.taught import INPUTS, VOCAB, pairs, write_taught_bundle  # noqa: E402
from wavegate_server.adapters.files.bundles import open_bundle  # noqa: E402
from wavegate_server.compress.distil import student, training  # noqa: E402
from wavegate_server.compress.measure.run import probe  # noqa: E402
from wavegate_shared.errors import UsageError  # noqa: E402

pytestmark = pytest.mark.timeout(180)  # torch is imported, and a teacher trained


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_taught_bundle(tmp_path_factory.mktemp("taught") / "in")


@pytest.fixture(scope="module")
def job(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A student's job, its teacher asked and the original scored."""
    folder = tmp_path_factory.mktemp("job")
    with open_bundle(bundle) as opened:
        spec = opened.spec
    common: dict[str, Any] = {"directory": str(bundle), "pre": spec.pre, "train": "train.npz", "inputs": list(INPUTS)}
    source = {"factory": spec.source.factory, "weights": spec.source.weights, "options": spec.source.options}  # type: ignore[union-attr]
    common |= {
        "source": source,
        "threads": 1,
        "texts": [str(bundle / "train.npz"), str(bundle / "calib.npz")],
    }
    student.teach({**common, "target": str(folder / "teacher.npy")}, print)
    metric = {"name": "accuracy", "unit": "share", "direction": "up"}
    choose = {"samples": str(bundle / "calib.npz"), "rows": None, "directory": str(bundle), "pre": spec.pre}
    outputs = str(folder / "before.npz")
    model = {"kind": "score", "model": str(bundle / "model.onnx"), "metric": metric, "outputs": outputs}
    before = probe({**model, **choose})
    return {
        **common,
        "structure": next(s for s in student.propose(common, print)["structures"] if s["name"] == "layers1-heads2-ffn32"),
        "teacher": str(folder / "teacher.npy"),
        "temperature": 5.0, "alpha": 0.7, "seed": 13, "seconds": 100.0, "goal": -1.0, "steps": 160, "classes": True,
        "metric": metric, "choose": str(bundle / "calib.npz"), "choose_rows": None, "before": outputs,
        "before_value": before["value"], "graph": str(bundle / "model.onnx"),
    }  # fmt: skip


def test_distilling_makes_better_what_was_only_cut(job: dict[str, Any], tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    answer = student.make({**job, "target": str(tmp_path)}, told.append)
    assert answer["drop_untrained"] > 0.2
    assert answer["drop"] < answer["drop_untrained"] / 2
    assert answer["stopped"] == "steps"
    assert answer["parameters"] < answer["parameters_before"] / 3
    assert [event["step"] for event in told] == list(range(20, 161, 20))
    assert told[-1]["best"] is not None
    graph = onnx.load(str(tmp_path / "student.onnx"))
    assert [value.name for value in graph.graph.input] == list(INPUTS)
    words = (tmp_path / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert len(words) < len(VOCAB) / 4
    shapes = [list(tensor.dims) for tensor in graph.graph.initializer]
    assert [len(words), 32] in shapes
    assert [32, 32] in shapes  # one position for each token of the longest input


def test_it_stops_early_when_the_budget_is_met(job: dict[str, Any], tmp_path: Path) -> None:
    answer = student.make({**job, "goal": 0.5, "target": str(tmp_path)}, lambda _: None)
    assert answer["stopped"] == "budget"
    assert answer["steps"] < 160


def test_it_stops_when_its_time_is_up(job: dict[str, Any], tmp_path: Path) -> None:
    answer = student.make({**job, "seconds": 0.0, "steps": 100_000, "target": str(tmp_path)}, lambda _: None)
    assert answer["stopped"] == "time"
    assert (tmp_path / "student.onnx").is_file()


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.full(40, 2), "classes from 0 to 1"),
        (np.full((40, 2), 0.5), "classes from 0 to 1"),
        (np.full(40, 0.5), "classes from 0 to 1"),
    ],
)
def test_train_labels_that_do_not_fit_are_refused(job: dict[str, Any], tmp_path: Path, labels: Any, words: str) -> None:
    taught = _with_train(job, tmp_path, {"input.text": pairs(40, 9)[0], "label": labels})
    with pytest.raises(UsageError, match=words) as caught:
        student.make({**taught, "target": str(tmp_path)}, lambda _: None)
    assert caught.value.code == "bundle_invalid"


def test_a_train_set_of_other_inputs_is_refused(job: dict[str, Any], tmp_path: Path) -> None:
    taught = _with_train(job, tmp_path, {"input.image": np.zeros((4, 3)), "label": np.zeros(4)})
    taught.pop("before")
    with pytest.raises(UsageError, match="lack"):
        student.teach({**taught, "pre": [], "target": str(tmp_path / "t.npy")}, lambda _: None)
    arrays = {f"input.{name}": np.zeros((4, 3, 2), dtype=np.int64) for name in INPUTS}
    taught = _with_train(job, tmp_path, arrays)
    taught.pop("before")
    with pytest.raises(UsageError, match="does not fit the torch module"):
        student.teach({**taught, "pre": [], "target": str(tmp_path / "t.npy")}, lambda _: None)


def test_a_source_that_is_not_the_graphs_is_refused(job: dict[str, Any], tmp_path: Path) -> None:
    target = tmp_path / "teacher.npy"
    assert student.teach({**job, "target": str(target)}, lambda _: None)["samples"] == 800
    with np.load(job["before"]) as archive:
        np.savez(tmp_path / "other.npz", outputs=archive["outputs"][::-1], lengths=archive["lengths"])
    with pytest.raises(UsageError, match="not those of the bundle's graph"):
        student.teach({**job, "before": str(tmp_path / "other.npz"), "target": str(target)}, lambda _: None)


def _with_train(job: dict[str, Any], folder: Path, arrays: dict[str, Any]) -> dict[str, Any]:
    np.savez(folder / "train.npz", allow_pickle=False, **arrays)
    np.save(folder / "teacher.npy", np.zeros((40, 2), dtype=np.float32))
    return {**job, "train": str(folder / "train.npz"), "teacher": str(folder / "teacher.npy")}


def test_numbers_are_distilled_by_their_squared_difference() -> None:
    torch.manual_seed(1)
    x = np.random.default_rng(1).normal(size=(256, 4)).astype(np.float32)
    wanted = x.sum(axis=1, keepdims=True)
    net = torch.nn.Linear(4, 1)
    groups = training.group([{"x": row[None]} for row in x])
    plan = training.Plan(steps=150, batch=32, rate=5e-2, classes=False)

    def check(module: Any) -> training.Check:
        error = float(np.abs(training.answers(module, groups, exact=True) - wanted).mean())
        return training.Check(error, error)

    before = check(net).drop
    after = training.fit(net, groups, wanted, wanted, plan, check, lambda _: None)
    assert after.best.drop < before / 10


def test_a_training_that_reached_its_goal_cools_down_and_ends() -> None:
    x = np.random.default_rng(1).normal(size=(64, 4)).astype(np.float32)
    net = torch.nn.Linear(4, 2)
    plan = training.Plan(steps=100, batch=16, rate=1e-2, goal=0.5)
    groups = training.group([{"x": row[None]} for row in x])
    weights: list[Any] = []

    def check(module: Any) -> training.Check:
        weights.append(module.weight.detach().clone())
        return training.Check(0.0, 1 / len(weights))

    done = training.fit(net, groups, x[:, :2].copy(), None, plan, check, lambda _: None)
    assert done.stopped == "budget"
    assert 55 <= done.steps <= 70  # the second good check in a row, and 15 of 100 steps
    change = [float((b - a).abs().max()) for a, b in pairwise(weights)]
    assert change[-1] < change[0] / 2  # the rate has fallen
