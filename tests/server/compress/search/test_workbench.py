"""The steps of one candidate, from the job's side."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.graphs import write_conv_bundle
from wavegate_server.adapters.files.bundles import open_bundle
from wavegate_server.compress.process.step_cache import Cache
from wavegate_server.compress.search import workbench
from wavegate_server.compress.search.splits import make_splits
from wavegate_server.compress.search.workbench import CALIBRATION, Workbench


@pytest.mark.parametrize(("given", "wanted"), [({}, CALIBRATION), ({"calibration": 4}, 4)])
def test_static_recipes_are_calibrated_with_as_many_samples_as_asked_for(
    given: dict[str, int], wanted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[dict[str, Any]] = []

    def child(_: str, job: dict[str, Any], **__: Any) -> dict[str, Any]:
        jobs.append(job)
        Path(job["target"]).touch()
        return {"notes": [], "plan": {}}

    monkeypatch.setattr(workbench, "run_child", child)
    with open_bundle(write_conv_bundle(tmp_path / "in", golden=20)) as bundle:
        bench = Workbench(bundle, make_splits(bundle), Cache(tmp_path / "cache"), lambda: 100.0, **given)
        bench.make("int8-static-per-channel", bench.original(), [], "one")
    assert [job["samples"] for job in jobs] == [wanted]
