"""The committed OpenAPI document is that of the code; a change of the API shows in review."""

from pathlib import Path

import pytest

from tests.support.api_server import Api
from wavegate_server.api import openapi

DOCUMENT = openapi.document()
FILE = Path(__file__).parents[3] / "docs" / "openapi.json"


def test_the_committed_document_is_the_present_one() -> None:
    assert FILE.read_text(encoding="utf-8") == openapi.text(), "run: python -m wavegate_server.api.openapi"


def test_a_running_server_serves_the_same_document(api: Api) -> None:
    assert api.client.get("/api/v1/openapi.json").json() == DOCUMENT


def test_every_operation_has_an_id_a_summary_and_a_description() -> None:
    operations = [op for path in DOCUMENT["paths"].values() for op in path.values()]
    assert len({op["operationId"] for op in operations}) == len(operations)
    assert [op["operationId"] for op in operations if not (op["summary"] and op["description"])] == []


def test_every_error_answer_is_a_problem() -> None:
    for path in DOCUMENT["paths"].values():
        for operation in path.values():
            for status, answer in operation["responses"].items():
                if status[0] in "45" and operation["operationId"] != "health":
                    assert list(answer["content"]) == ["application/problem+json"], (operation["operationId"], status)


def test_every_body_has_an_example() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    for path in DOCUMENT["paths"].values():
        for operation in path.values():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            names = [part["$ref"].rsplit("/", 1)[1] for part in [body, *body.get("anyOf", ())] if "$ref" in part]
            assert all(schemas[name].get("examples") for name in names), names


def test_main_writes_the_file_below_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="no docs directory"):
        openapi.main()
    (tmp_path / "docs").mkdir()
    openapi.main()
    assert (tmp_path / "docs" / "openapi.json").read_text() == FILE.read_text()
