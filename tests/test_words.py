"""One word per thing: public names and the API's document keep to the words of docs/concepts.md."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("shared/wavegate_shared", "agent/wavegate_agent", "server/wavegate_server")
FORBIDDEN = {
    "brain": "machines",
    "talker": "uplink thread",
    "clockwork": "trusted clock",
    "desk": "page context",
    "box": "round, requests",
    "hands": "executor",
    "front": "preprocessing, TLS front",
    "node": "device; a node is one of an ONNX graph",
    "order": "assignment",
    "orders": "assignments",
    "blob": "artifact",
    "payload": "artifact; a payload is an MQTT message's",
    "deployment": "rollout",
    "pilot": "canary",
    "production": "champion",
    "staging": "challenger; to stage is a verb",
    "flavour": "variant",
    "flavor": "variant",
    "partition": "slot",
}
"""Words for things that have another one, and that one. A word is a part of a name between underscores or capitals."""
ALLOWED = {
    "node": re.compile(r"onnx|graph|compress|quantise|recipe|exclude"),
    "payload": re.compile(r"broker|mqtt|ingest|outbox|wire|dsse|network|delivery|uplink|services|chunks|tables"),
    "front": re.compile(r"tls_?front|pareto|compress", re.IGNORECASE),
    "box": re.compile(r"BOX_NUMBERS|detection", re.IGNORECASE),
    "order": re.compile(r"in_order|judging_order|rollout/waves"),
    "staging": re.compile(r"version_store"),
}
"""Where a word has the meaning that is its own: matched against `path:name`."""
SENTENCES = ("again is the same", "the hands of")


def words(name: str) -> set[str]:
    """`HTTPBodyLimit` and `body_limit` both hold body and limit."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return {word.lower() for word in spaced.split("_") if word}


def public_names(path: Path) -> Iterator[str]:
    """The module's own name, its public classes and functions, and public methods and fields of those classes."""
    yield path.stem
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield inner.name
                elif isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Name):
                    yield inner.target.id
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_use_the_words_of_the_glossary(package: str) -> None:
    wrong = []
    for path in sorted((ROOT / package).rglob("*.py")):
        for name in public_names(path):
            if name.startswith("_"):
                continue
            at = f"{path.relative_to(ROOT)}:{name}"
            for word in sorted(words(name) & FORBIDDEN.keys()):
                if word not in ALLOWED or not ALLOWED[word].search(at):
                    wrong.append(f"{at}: {word!r}; say {FORBIDDEN[word]}")
    assert wrong == []


def texts(document: object) -> Iterator[str]:
    """Names and prose of an OpenAPI document."""
    if isinstance(document, dict):
        for key, value in document.items():
            if key in ("summary", "description", "title", "operationId") and isinstance(value, str):
                yield value
            else:
                yield from texts(value)
    elif isinstance(document, list):
        for value in document:
            yield from texts(value)


def test_the_api_uses_the_words_of_the_glossary() -> None:
    document = json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))
    wrong = []
    for text in texts(document):
        lowered = text.lower()
        wrong += [f"{text[:80]!r}: {sentence!r}" for sentence in SENTENCES if sentence in lowered]
        plain = re.sub(r"in (the|their|its|this) order|order of", "", lowered)
        wrong += [f"{text[:80]!r}: {word}" for word in FORBIDDEN if re.search(rf"\b{word}\b", plain)]
    assert wrong == []


def test_the_check_knows_a_forbidden_word() -> None:
    assert words("RoundBox") == {"round", "box"}
    assert words("next_order") == {"next", "order"}
    assert words("HTTPFrontDoor") == {"http", "front", "door"}
