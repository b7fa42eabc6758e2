"""Missing JavaScript libraries are named by the server's log at its start."""

import logging
from pathlib import Path

import pytest
from fastapi import FastAPI

from tests.support.web_server import Dashboard
from wavegate_server.web import add_web, vendor


def test_files_that_are_missing_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vendor, "VENDOR_DIR", tmp_path)
    assert vendor.missing() == list(vendor.FILES)
    (tmp_path / "htmx.min.js").touch()
    assert "htmx.min.js" not in vendor.missing()


def test_the_server_warns_at_its_start_and_says_what_to_do(
    shared: Dashboard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(vendor, "missing", lambda: ["htmx.min.js", "uPlot.min.css"])
    add_web(FastAPI(), shared.context)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [text for text in warnings if text.startswith("vendor_missing files=htmx.min.js,uPlot.min.css")] == warnings
    assert "pip install ./server" in warnings[0]


def test_the_server_is_silent_when_the_libraries_are_there(
    shared: Dashboard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(vendor, "missing", list)
    add_web(FastAPI(), shared.context)
    assert caplog.records == []
