"""Steps are done once; half-done and failed ones never count."""

from pathlib import Path
from typing import Any

import pytest

from wavegate_server.compress import cache as under_test
from wavegate_server.compress.cache import Cache


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
