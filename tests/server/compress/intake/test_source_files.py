"""Gathering a torch module's files: what it imports comes along, nothing is run, nothing else is copied."""

from pathlib import Path

import pytest

from wavegate_server.compress.intake.source_files import Gathered, gather
from wavegate_shared.errors import UsageError

FILES = {
    "net.py": "from layers import block\nimport torch, parts.deep\nraise SystemExit('nobody runs this')\n",
    "layers.py": "import sizes\n",
    "sizes.py": "",
    "secret.py": "",
    "parts/__init__.py": "",
    "parts/deep.py": "from .other import x\nfrom kit import y\n",
    "parts/other.py": "",
    "parts/weights.bin": "not Python",
    "kit.py": "",
}


@pytest.fixture
def working(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        file = tmp_path / "code" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return tmp_path / "code"


def found(gathered: Gathered, folder: Path) -> set[str]:
    names = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert names == set(gathered.files)
    return {name.removeprefix("source/") for name in names}


def test_a_file_and_what_it_imports_beside_it(working: Path, tmp_path: Path) -> None:
    gathered = gather("net.py:build", tmp_path / "out", working)
    assert gathered.factory == "source/net.py:build"
    parts = {"parts/__init__.py", "parts/deep.py", "parts/other.py"}
    assert found(gathered, tmp_path / "out") == {"net.py", "layers.py", "sizes.py", "kit.py", *parts}


def test_a_package_of_the_working_directory(working: Path, tmp_path: Path) -> None:
    gathered = gather("parts.deep:build", tmp_path / "out", working)
    assert gathered.factory == "source/wavegate_entry.py:build"
    assert "from parts.deep import build" in gathered.files["source/wavegate_entry.py"].read_text(encoding="utf-8")
    assert {"wavegate_entry.py", "parts/deep.py", "kit.py"} <= found(gathered, tmp_path / "out")
    assert not gathered.notes


def test_an_installed_module_is_only_named(working: Path, tmp_path: Path) -> None:
    gathered = gather("numpy.linalg:inv", tmp_path / "out", working)
    assert found(gathered, tmp_path / "out") == {"wavegate_entry.py"}
    assert "must be installed" in gathered.notes[0]


@pytest.mark.parametrize(
    ("named", "code"),
    [
        ("net.py", "invalid"),
        ("net.py:", "invalid"),
        ("net.py:1x", "invalid"),
        ("net.py:build()", "invalid"),
        (":build", "invalid"),
        ("../code;x:build", "invalid"),
        ("absent.py:build", "bundle_invalid"),
        ("no_such_module_here:build", "bundle_invalid"),
        ("broken.py:build", "bundle_invalid"),
        ("large.py:build", "bundle_invalid"),
    ],
)
def test_what_names_nothing_is_refused(working: Path, tmp_path: Path, named: str, code: str) -> None:
    (working / "broken.py").write_text("def (", encoding="utf-8")
    (working / "large.py").write_text("#" * ((1 << 20) + 1), encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        gather(named, tmp_path / "out", working)
    assert caught.value.code == code
