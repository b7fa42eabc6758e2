"""A bundle from bare files: what is made, what is refused, and that nothing is written then."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support.graphs import conv_net, regression_net, sensor_samples, stripes
from wavegate_server.adapters.files.bundles import open_bundle
from wavegate_server.compress.intake.onnx_file import Bare, Given, make_bundle
from wavegate_shared.errors import UsageError


@pytest.fixture
def files(tmp_path: Path) -> Path:
    onnx.save(conv_net(batch="n"), str(tmp_path / "Stripe Net.onnx"))
    images, labels = stripes(120, 11)
    np.savez(tmp_path / "x.npz", image=images)
    np.save(tmp_path / "y.npy", labels)
    return tmp_path


def make(files: Path, **more: object) -> Bare:
    given = Given(files / "x.npz", **more)  # type: ignore[arg-type]
    return make_bundle(files / "Stripe Net.onnx", given, files / "out")


def test_with_labels_it_is_judged_by_accuracy(files: Path) -> None:
    made = make(files, labels=files / "y.npy")
    assert (made.metric, made.samples) == ("accuracy", {"golden": 90, "calib": 30})
    assert made.value > 0.95
    with open_bundle(files / "out") as bundle:
        assert (bundle.spec.model, bundle.spec.family) == ("stripe-net", "cnn")
        assert bundle.spec.golden_limit == pytest.approx(made.value - 0.05)
        assert bundle.spec.inputs[0].shape == [-1, 1, 16, 16]


def test_without_labels_by_agreement_with_the_original(files: Path) -> None:
    made = make(files)
    assert (made.metric, made.value) == ("agreement", 1.0)
    assert any("no labels" in note for note in made.notes)


def test_a_metric_that_does_not_know_the_original_again_is_refused(files: Path) -> None:
    """Raw boxes [n, 4 + classes, anchors] scored 0.515 against themselves, after minutes."""
    with pytest.raises(
        UsageError, match=r"detection_agreement cannot judge this model.*last dimension is 6.*choose another"
    ):
        make(files, metric="detection_agreement")
    assert not (files / "out").exists()


@pytest.mark.parametrize("metric", ["exact_match", "error_bound:5%", "mean_absolute_error", "character_error_rate"])
def test_any_other_metric_of_outputs_knows_the_original_again(files: Path, metric: str) -> None:
    assert make(files, metric=metric).value == (
        0.0 if metric in ("mean_absolute_error", "character_error_rate") else 1.0
    )


def test_a_regression_is_judged_by_its_error(tmp_path: Path) -> None:
    onnx.save(regression_net(), str(tmp_path / "m.onnx"))
    x, y = sensor_samples(800, 12)
    np.savez(tmp_path / "x.npz", x=x, label=y)
    made = make_bundle(tmp_path / "m.onnx", Given(tmp_path / "x.npz"), tmp_path / "out")
    assert made.metric == "mean_absolute_error"
    assert made.samples == {"golden": 300, "calib": 128, "eval": 372}
    with open_bundle(tmp_path / "out") as bundle:
        assert bundle.spec.golden_limit == pytest.approx(made.value * 1.1)


def test_an_old_opset_and_external_weights_are_taken_along(files: Path) -> None:
    place = files / "Stripe Net.onnx"
    onnx.save(conv_net(opset=11, batch="n"), str(place), save_as_external_data=True, location="w.bin", size_threshold=0)
    assert any("opset 11 upgraded" in note for note in make(files).notes)
    (files / "w.bin").unlink()
    with open_bundle(files / "out") as bundle:
        model = onnx.load(str(bundle.model_path))
    assert model.opset_import[0].version >= 13
    assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_no_sample_is_in_two_sets(files: Path) -> None:
    make(files)
    seen = [np.load(files / "out" / f"{each}.npz")["input.image"] for each in ("golden", "calib")]
    rows = np.concatenate(seen).reshape(120, -1)
    assert len(np.unique(rows, axis=0)) == 120


@pytest.mark.parametrize(
    ("inputs", "labels", "words"),
    [
        ({"other": np.zeros((4, 1, 16, 16), np.float32)}, None, "the graph takes"),
        ({"image": np.zeros((4, 3, 16, 16), np.float32)}, None, "does not fit"),
        ({"image": np.zeros((0, 1, 16, 16), np.float32)}, None, "differ in length"),
        ({"image": np.zeros((4, 1, 16, 16), np.float32)}, np.zeros(3, np.int64), "differ in length"),
        ({"image": np.full((4, 1, 16, 16), np.nan, np.float32)}, None, "not finite"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    files: Path, inputs: dict[str, np.ndarray], labels: np.ndarray | None, words: str
) -> None:
    np.savez(files / "x.npz", **inputs)  # type: ignore[arg-type]  # numpy's stub wants a flag there
    if labels is not None:
        np.save(files / "y.npy", labels)
    with pytest.raises(UsageError, match=words) as caught:
        make(files, labels=files / "y.npy" if labels is not None else None)
    assert caught.value.code == "bundle_invalid"
    assert not (files / "out").exists()


def test_pickles_unknown_metrics_and_used_directories_are_refused(files: Path) -> None:
    with pytest.raises(UsageError, match="metric 'beauty' is not known"):
        make(files, metric="beauty")
    np.save(files / "y.npy", np.array([{"a": 1}] * 120), allow_pickle=True)
    with pytest.raises(UsageError, match="plain arrays"):
        make(files, labels=files / "y.npy")
    (files / "out").mkdir()
    (files / "out" / "precious").write_text("x", encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        make(files)
    assert caught.value.code == "conflict"
