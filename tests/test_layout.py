"""The tree's own law: every module is tested, none grows without bound, nothing points out of the tree."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = {"shared": "shared/wavegate_shared", "agent": "agent/wavegate_agent", "server": "server/wavegate_server"}
MAX_LINES, MAX_FUNCTION_LINES = 400, 60


def modules(part: str) -> list[Path]:
    found = sorted((ROOT / PARTS[part]).rglob("*.py"))
    return [path for path in found if not path.name.startswith("__") and "migrations" not in path.parts]


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / line for line in listed.stdout.splitlines()]


def test_pure_modules_have_their_mirror() -> None:
    """Decisions are tested one module to one test module; adapters and wiring are tested by what they do together."""
    lacking = []
    for part, source in PARTS.items():
        for path in modules(part):
            inside = path.relative_to(ROOT / source)
            if part != "shared" and inside.parts[0] != "core":
                continue
            if not (ROOT / "tests" / part / inside.parent / f"test_{path.name}").is_file():
                lacking.append(str(path.relative_to(ROOT)))
    assert lacking == []


def test_every_module_is_reached_by_some_test() -> None:
    """By import from a test or a module, by its dotted name as a process that is started, or as an installed command."""
    python = [path for folder in ("tests", *PARTS.values()) for path in (ROOT / folder).rglob("*.py")]
    commands = [ROOT / part / "pyproject.toml" for part in ("agent", "server")]
    named: set[str] = set()
    for path in [*python, *commands]:
        text = path.read_text(encoding="utf-8")
        named.update(re.findall(r"wavegate_[a-z]+(?:\.\w+)+", text))
        for module, names in re.findall(r"from (wavegate_[\w.]+) import \(?([\w, ]+|[\w,\s]+(?=\)))", text):
            named.update(f"{module}.{name.strip()}" for name in names.split(","))
    dotted = {".".join(path.relative_to(ROOT).with_suffix("").parts[1:]) for part in PARTS for path in modules(part)}
    assert dotted - named == set()


def test_no_file_or_function_grows_without_bound() -> None:
    too_long = []
    for path in tracked():
        if path.suffix != ".py" or not path.is_file() or "versions" in path.parts:
            continue
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > MAX_LINES:
            too_long.append(f"{path.relative_to(ROOT)}: {len(text.splitlines())} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    too_long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {length} lines")
    assert too_long == []


def test_no_lock_or_constraints_file_names_a_host() -> None:
    for name in ("constraints.txt", "server/package-lock.json", "server/.npmrc"):
        assert "://" not in (ROOT / name).read_text(encoding="utf-8"), name
