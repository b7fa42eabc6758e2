"""Steps are done once; half-done and failed ones never count."""

import shutil
from pathlib import Path
from typing import Any

import grimp
import pytest

import wavegate_server
from wavegate_server.compress.process import step_cache as under_test
from wavegate_server.compress.process.step_cache import Cache


def test_a_step_is_made_once_for_the_same_parts(tmp_path: Path) -> None:
    calls: list[Path] = []

    def make(folder: Path) -> dict[str, Any]:
        calls.append(folder)
        (folder / "model").write_text("weights", encoding="utf-8")
        return {"n": len(calls)}

    first = Cache(tmp_path).step("recipe", {"a": 1}, make)
    again = Cache(tmp_path).step("recipe", {"a": 1}, make)
    other = Cache(tmp_path).step("recipe", {"a": 2}, make)
    assert first == again
    assert (again[0] / "model").read_text(encoding="utf-8") == "weights"
    assert (again[1], other[1]) == ({"n": 1}, {"n": 2})


def test_a_step_that_fails_or_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    def broken(folder: Path) -> dict[str, Any]:
        (folder / "model").write_text("half", encoding="utf-8")
        raise KeyboardInterrupt

    cache = Cache(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        cache.step("recipe", {}, broken)
    assert list(tmp_path.iterdir()) == []
    assert cache.step("recipe", {}, lambda _: {"ok": True})[1] == {"ok": True}
    assert cache.hits == 0


def test_an_upgrade_does_the_steps_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older code may have made something that today's would not."""
    Cache(tmp_path).step("base", {}, lambda _: {"by": "old"})
    made = under_test._maker()
    assert made["onnx"]
    assert made["code"]
    monkeypatch.setattr(under_test, "_maker", lambda: {**made, "code": "another"})
    assert Cache(tmp_path).step("base", {}, lambda _: {"by": "new"})[1] == {"by": "new"}


@pytest.mark.parametrize(
    "changed", ["adapters/files/onnx_files.py", "compress/exports/foreign/tflite_worker.py", "core/compress/budget.py"]
)
def test_a_change_in_any_file_that_a_step_runs_is_another_maker(tmp_path: Path, changed: str) -> None:
    server = Path(wavegate_server.__file__).parent
    for name in under_test._SERVER_CODE:
        shutil.copytree(server / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    folders = [tmp_path / name for name in under_test._SERVER_CODE]
    before = under_test._code_digest(folders)
    assert before == under_test._code_digest([server / name for name in under_test._SERVER_CODE])
    with (tmp_path / changed).open("a", encoding="utf-8") as source:
        source.write("# another line\n")
    assert under_test._code_digest(folders) != before


def test_the_compressor_runs_no_code_outside_the_digest() -> None:
    """Every module that a module of the compressor imports, at any distance, lies in a folder that is digested."""
    graph = grimp.build_graph("wavegate_server", "wavegate_shared", cache_dir=None)
    compressor = graph.find_descendants("wavegate_server.compress")
    reached = {name for module in compressor for name in graph.find_upstream_modules(module)}
    covered = {"wavegate_shared", *(f"wavegate_server.{name}" for name in under_test._SERVER_CODE)}
    outside = [name for name in reached if not any(name == root or name.startswith(f"{root}.") for root in covered)]
    about_limits_only = {"wavegate_server", "wavegate_server.config"}  # how much a job may use, not what a step does
    assert set(outside) <= about_limits_only
