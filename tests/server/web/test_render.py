"""What every page carries: headers, compression, a block of its own for htmx."""

import re

import pytest
from fastapi.testclient import TestClient

from wavegate_server.web.render import HEADERS


@pytest.mark.parametrize("path", ["/fleet", "/login", "/devices/nope"])
def test_nothing_inline_and_nothing_foreign(client: TestClient, path: str) -> None:
    page = client.get(path)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert re.findall(r'\s(?:style|on\w+)="', page.text) == []
    assert re.findall(r"<script(?![^>]*\ssrc=)|<style", page.text) == []
    assert re.findall(r'(?:src|href|action)="(?!/|#|\?)[^"]*"', page.text) == []


def test_pages_are_compressed_for_those_who_can(client: TestClient) -> None:
    small = client.get("/fleet", headers={"Accept-Encoding": "gzip"})
    plain = client.get("/fleet", headers={"Accept-Encoding": ""})
    assert small.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert int(small.headers["content-length"]) * 3 < int(plain.headers["content-length"])
    assert "accept-encoding" in HEADERS["vary"]


def test_text_of_devices_is_escaped(client: TestClient) -> None:
    page = client.get("/fleet?q=%3Cscript%3Ealert(1)%3C/script%3E").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_a_signed_out_tab_is_sent_to_sign_in(client: TestClient) -> None:
    client.cookies.clear()
    answer = client.get("/fleet", headers={"HX-Request": "true"})
    assert (answer.status_code, answer.headers["hx-redirect"]) == (401, "/login")
