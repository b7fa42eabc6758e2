"""Copying the JavaScript libraries."""

import json
from pathlib import Path

import pytest

from wavegate_server.web import vendor
from wavegate_shared.errors import UsageError

ROOT = Path(__file__).parents[3]


def fake_modules(root: Path) -> Path:
    for path in vendor.FILES.values():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    return root


def test_every_file_is_copied_and_again_changes_nothing(tmp_path: Path) -> None:
    modules = fake_modules(tmp_path / "node_modules")
    for _ in range(2):
        copied = vendor.vendor(modules, tmp_path / "vendor")
        assert sorted(path.name for path in copied) == sorted(vendor.FILES)
    assert (tmp_path / "vendor" / "htmx.min.js").read_text() == "htmx.org/dist/htmx.min.js"


def test_without_npm_it_says_what_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="npm ci"):
        vendor.vendor(tmp_path)
    assert vendor.main([str(tmp_path)]) == 1
    assert "npm ci" in capsys.readouterr().err


def test_the_lock_pins_two_libraries_and_names_no_host() -> None:
    text = (ROOT / "package-lock.json").read_text()
    lock = json.loads(text)["packages"]
    assert "http" not in text
    assert all(entry["integrity"].startswith("sha512-") for name, entry in lock.items() if name)
    assert sorted(json.loads((ROOT / "package.json").read_text())["dependencies"]) == ["htmx.org", "uplot"]
