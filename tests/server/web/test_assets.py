"""Static files: cached for ever under their digest, compressed, and no way out of the directory."""

from pathlib import Path

from fastapi.testclient import TestClient

from wavegate_server.web.assets import load_assets


def test_a_named_version_is_cached_for_ever_and_compressed(client: TestClient) -> None:
    url = load_assets().url("app.css")
    answer = client.get(url, headers={"Accept-Encoding": "gzip"})
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["content-encoding"] == "gzip"
    assert int(answer.headers["content-length"]) < len(answer.content)


def test_another_version_is_asked_for_again(client: TestClient) -> None:
    answer = client.get("/static/app.css?v=old", headers={"Accept-Encoding": ""})
    assert answer.headers["cache-control"] == "no-cache"
    assert "content-encoding" not in answer.headers
    assert client.get("/static/app.css", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304


def test_nothing_outside_is_served(client: TestClient) -> None:
    for path in ("nope.css", "../app.py", "%2e%2e/app.py", "vendor/htmx.LICENSE"):
        assert client.get(f"/static/{path}").status_code == 404


def test_only_known_kinds_are_loaded(tmp_path: Path) -> None:
    (tmp_path / "a.js").write_text("1")
    (tmp_path / "secret.txt").write_text("2")
    assert list(load_assets(tmp_path).files) == ["a.js"]
