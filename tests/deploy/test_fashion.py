"""The fashion recipe: the bundle's declared pre-processing is what the training script does, and no photo is in two sets."""

import gzip
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.distil import needs_distil

needs_distil()

ROOT = Path(__file__).parents[2] / "deploy" / "models" / "fashion"


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"fashion_recipe.{name}")


def photos(count: int, seed: int = 1) -> NDArray[np.uint8]:
    made = np.random.default_rng(seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)
    made.reshape(-1)[:256] = np.arange(256)  # every level
    return made


def test_the_declared_operations_give_what_the_training_script_saw(recipe: Any) -> None:
    images = photos(5)
    wanted = recipe("training").prepared(images).numpy()
    got = recipe("bundle").declared(images)
    assert got.dtype == np.float32
    assert got.shape == (5, 1, 28, 28)
    assert np.array_equal(got, wanted)


def write_idx(folder: Path, name: str, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for kind, magic, array in (("images-idx3", 2051, images), ("labels-idx1", 2049, labels)):
        head = b"".join(number.to_bytes(4, "big") for number in (magic, *array.shape))
        (folder / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes(), 1))


def test_the_splits_share_no_photo(recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = recipe("data")
    monkeypatch.setattr(data, "_INSTALLED", Path("/usr/share/datasets/nowhere"))
    folder = tmp_path / "data" / "usr/share/datasets/nowhere"
    for name, count in (("train", 60_000), ("t10k", 10_000)):
        number = np.arange(count, dtype=np.uint32).view(np.uint8).reshape(count, 2, 2)
        write_idx(folder, name, number, (np.arange(count) % 10).astype(np.uint8))
    splits = data.load(tmp_path)
    sizes = {"train": 57_000, "val": 3_000, "golden": 300, "eval": 3_000, "unseen": 6_700}
    ids = {name: getattr(splits, name).images.reshape(-1, 4).view(np.uint32).ravel() for name in sizes}
    assert {name: len(each) for name, each in ids.items()} == sizes
    assert sorted([*ids["train"], *ids["val"]]) == list(range(60_000))
    assert sorted([*ids["golden"], *ids["eval"], *ids["unseen"]]) == list(range(10_000))
    for name, each in ids.items():
        assert (getattr(splits, name).labels == each % 10).all(), "labels went with their photos"


def test_without_apt_it_says_what_to_install(recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = recipe("data")
    monkeypatch.setattr(data, "_INSTALLED", Path("/usr/share/datasets/nowhere"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="dataset-fashion-mnist"):
        data.load(tmp_path / "cache")


def test_the_net_has_the_size_of_a_resnet18(recipe: Any) -> None:
    model = recipe("net").build()
    assert 11.1e6 < sum(each.numel() for each in model.parameters()) < 11.3e6
    assert not model.training


def test_training_changes_the_net_and_leaves_it_in_eval_mode(recipe: Any) -> None:
    training, data = recipe("training"), recipe("data")
    model = recipe("net").build(width=8)
    before = model.head.weight.detach().clone()
    images = photos(32)
    training.fit(model, data.Split(images, np.arange(32) % 10), training.Plan(steps=2, batch=16))
    assert not model.training
    assert (model.head.weight != before).any()
    logits = training.logits_of(model, images)
    assert logits.shape == (32, 10)
    assert 0 <= training.accuracy(logits, np.arange(32) % 10) <= 1
