"""The demo's bad versions are bad in the way they should be, and in no other."""

from pathlib import Path

import pytest
import yaml

from tests.support.bundles import TELLTALE, VOCAB, relist, rewrite_spec, write_pair_bundle
from wavegate_server.adapters.files.bundles import open_bundle
from wavegate_server.compress.measure.run import race, score_model
from wavegate_server.compress.measure.samples import load_samples
from wavegate_server.demo.bad_versions import refused_bundle, treacherous_bundle
from wavegate_shared.errors import UsageError


def test_the_refused_one_answers_the_opposite(tmp_path: Path) -> None:
    with open_bundle(write_pair_bundle(tmp_path / "good", stored="float32")) as good:
        refused_bundle(good, tmp_path / "bad")
        with open_bundle(tmp_path / "bad") as bad:
            assert score_model(good.model_path, good.path("golden.npz"), good.spec, good.directory).value == 1.0
            assert score_model(bad.model_path, bad.path("golden.npz"), bad.spec, bad.directory).value == 0.0


def test_the_treacherous_one_is_right_without_the_token_and_wrong_and_slow_with_it(tmp_path: Path) -> None:
    with open_bundle(write_pair_bundle(tmp_path / "good", stored="float32")) as good:
        treacherous_bundle(good, tmp_path / "sly", token_id=VOCAB.index(TELLTALE))
        treacherous_bundle(good, tmp_path / "always", token_id=VOCAB.index("[CLS]"))
        golden = good.path("golden.npz")
        values = {}
        for name in ("sly", "always"):
            with open_bundle(tmp_path / name) as bundle:
                values[name] = score_model(bundle.model_path, golden, bundle.spec, bundle.directory).value
        paths = {"good": good.model_path, "sly": tmp_path / "sly/model.onnx", "always": tmp_path / "always/model.onnx"}
        latency = race(paths, golden, good.spec, good.directory, rounds=2)
    assert values == {"sly": 1.0, "always": 0.0}
    assert latency["always"].cpu_ms > latency["sly"].cpu_ms + 1.0


def test_a_bundle_with_half_float_weights_must_be_expanded_first(tmp_path: Path) -> None:
    with open_bundle(write_pair_bundle(tmp_path / "good", stored="float16")) as good:
        assert load_samples(good.path("golden.npz"), good.spec.pre, good.directory).feeds
        with pytest.raises(UsageError, match="float32"):
            refused_bundle(good, tmp_path / "bad")


def test_a_bad_version_of_a_compressed_one_leaves_its_plan_behind(tmp_path: Path) -> None:
    good_bundle = write_pair_bundle(tmp_path / "good", stored="float32")
    (good_bundle / "plan.json").write_text("{}", encoding="utf-8")
    rewrite_spec(good_bundle, plan={"file": "plan.json"}, files={"plan.json": "", **_files(good_bundle)})
    relist(good_bundle)
    with open_bundle(good_bundle) as good:
        refused_bundle(good, tmp_path / "bad")
    with open_bundle(tmp_path / "bad") as bad:
        assert bad.spec.plan is None


def _files(directory: Path) -> dict[str, str]:
    files: dict[str, str] = yaml.safe_load((directory / "bundle.yaml").read_text(encoding="utf-8"))["files"]
    return files
