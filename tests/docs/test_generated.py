"""Generated pages say what the code says, and what a page names by its path is there."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_protocol_page_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_decision_has_context_choice_and_price() -> None:
    pages = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert pages
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for part in ("**Context.**", "**Options.**", "**Choice.**", "**Price.**"):
            assert part in text, f"{page.name} lacks {part}"


def test_an_example_is_a_line_of_its_own() -> None:
    """Two examples of one command were joined into one line, which nobody could run."""
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert "Example:" not in page
    assert "### wavegate-agent run" in page
    assert "--unix-socket" in page


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
        *(f"docs/adr/{p.name}" for p in (ROOT / "docs" / "adr").glob("*.md")),
    ],
)
def test_paths_and_links_of_a_page_exist(name: str) -> None:
    page = ROOT / name
    text = page.read_text(encoding="utf-8")
    paths = re.findall(r"`((?:agent|server|shared|tests|deploy|docs|changes)/[\w./-]+)`", text)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    made = ("deploy/models/.cache/",)  # written at run time, not in the repository
    missing = [path for path in paths if not (ROOT / path).exists() and not path.startswith(made)]
    missing += [link for link in links if link and not (page.parent / link).exists()]
    assert missing == []


def test_zones_of_the_architecture_page_exist() -> None:
    """The table of zones names packages relative to their part."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    zones = text[text.index("## Zones") : text.index("## Three walks")]
    names = {name for name in re.findall(r"`([\w/.]+)`", zones) if name != "pyproject.toml"}
    parts = (ROOT / "agent" / "wavegate_agent", ROOT / "server" / "wavegate_server", ROOT)
    assert [name for name in sorted(names) if not any((part / name).exists() for part in parts)] == []


@pytest.mark.parametrize("place", ["LICENSE", "agent/LICENSE", "server/LICENSE"])
def test_the_licence_is_apache_2_0_unmodified(place: str) -> None:
    """Beside each `pyproject.toml`, so that both wheels carry it."""
    digest = hashlib.sha256((ROOT / place).read_bytes()).hexdigest()
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
