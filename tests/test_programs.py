"""Modules that run as programs (`python -m`): each starts without a warning, and each module named by a string is there."""

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = [
    ROOT / part / package
    for part, package in (("agent", "wavegate_agent"), ("server", "wavegate_server"), ("shared", "wavegate_shared"))
]
MODULE_NAME = re.compile(r"wavegate_(agent|server|shared)(\.[a-z_0-9]+)+")


def sources() -> Iterator[tuple[str, str]]:
    """Dotted name and text of each module of the product."""
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            yield ".".join(path.relative_to(package.parent).with_suffix("").parts), path.read_text(encoding="utf-8")


PROGRAMS = [name for name, text in sources() if '__name__ == "__main__"' in text or name.endswith(".__main__")]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_starts_without_a_warning(program: str, tmp_path: Path) -> None:
    """Without input and arguments it ends at once; a module that its own package has imported would run twice, and warn."""
    command = [sys.executable, "-W", "error", "-m", program.removesuffix(".__main__")]
    done = subprocess.run(
        command, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    assert "Warning" not in done.stderr


def test_every_module_named_by_a_string_is_there() -> None:
    named = {
        node.value
        for _, text in sources()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and MODULE_NAME.fullmatch(node.value)
    }
    assert len(named) > 10
    assert [name for name in sorted(named) if importlib.util.find_spec(name) is None] == []
