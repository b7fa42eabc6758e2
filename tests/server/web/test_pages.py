"""The pages, as an operator reads them."""

import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.support.seed import device_ids
from tests.support.web_server import Dashboard, make_directory, open_dashboard
from wavegate_server.adapters import clock
from wavegate_server.adapters.store.tokens import Role

PART = {"HX-Request": "true", "HX-Request-Type": "partial"}
PAGES = (
    "/fleet",
    "/devices/locker-hz-01",
    "/devices/locker-den-06",
    "/models",
    "/models/address-match",
    "/models/kiln-inversion",
    "/rollouts",
    *(f"/rollouts/r{n}-address-match" for n in range(1, 6)),
)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("path", PAGES)
def test_every_page_answers_in_its_language(client: TestClient, path: str, language: str) -> None:
    page = client.get(path, headers={"Accept-Language": language})
    assert page.status_code == 200
    assert f'<html lang="{language}"' in page.text
    assert page.headers["cache-control"] == "no-store"


def test_the_fleet_page_counts_health_and_lists_devices(client: TestClient) -> None:
    page = client.get("/fleet").text
    assert re.search(r'class="donut-n">24<', page)
    assert all(f'href="/devices/{device}"' in page for device in device_ids())
    assert "Needs attention" in page
    assert "proven not worse on 5 devices: promoted; rest: 6 of 23 devices" in page


def test_filters_narrow_the_list_and_give_the_short_url(client: TestClient) -> None:
    answer = client.get("/fleet?q=hz&health=&class=pi4&site=&version=", headers=PART)
    assert re.findall(r'<tr id="d-([\w-]+)"', answer.text) == ["locker-hz-01", "locker-hz-03", "locker-hz-05"]
    assert answer.headers["hx-replace-url"] == "/fleet?q=hz&class=pi4"


def test_no_match_says_so_and_offers_to_clear(client: TestClient) -> None:
    page = client.get("/fleet?q=nowhere").text
    assert "No device fits these filters." in page
    assert '<a href="/fleet">Clear filters</a>' in page


def test_htmx_gets_only_the_live_part(client: TestClient) -> None:
    part, whole = client.get("/fleet", headers=PART).text, client.get("/fleet").text
    assert "<html" not in part
    assert len(part) < len(whole)
    assert 'id="d-locker-hz-01"' in part


def test_the_device_page_says_why(client: TestClient) -> None:
    page = client.get("/devices/locker-hz-01").text
    assert "Why v5?" in page
    assert (
        "It refused v3 before the swap and went on serving v2: golden set failed (accuracy 0.712 &lt; 0.965)." in page
    )
    assert 'data-series="/series/device/locker-hz-01?range=1h&amp;model=address-match"' in page


def test_a_pending_device_gets_the_command_to_enrol_it(client: TestClient) -> None:
    assert "wavegate device token locker-den-06" in client.get("/devices/locker-den-06").text


def test_older_events_are_a_page_away(client: TestClient) -> None:
    page = client.get("/devices/locker-hz-01").text
    older = re.search(r'href="(\?events=[\w-]+)#events-h"', page)
    assert older is not None
    again = client.get(f"/devices/locker-hz-01{older[1]}").text
    assert set(re.findall(r'id="(e-\d+)"', page)).isdisjoint(re.findall(r'id="(e-\d+)"', again))


def test_a_model_shows_the_signed_table_and_what_a_gate_denied(client: TestClient) -> None:
    page = client.get("/models/address-match").text
    for row in ("Size", "Latency p50", "Peak memory", "CPU time per inference", "Accuracy"):
        assert f'<th scope="row">{row}</th>' in page
    assert "−71.3 %" in page
    assert page.count("rolled back by a gate") == 2


def test_an_imported_version_says_how_to_publish_it(client: TestClient) -> None:
    assert "wavegate model publish kiln-inversion 1" in client.get("/models/kiln-inversion").text


def test_the_gate_leads_with_its_sentence_then_the_figures(client: TestClient) -> None:
    page = client.get("/rollouts/r4-address-match").text
    gate = page[page.index('class="gate ') :]
    sentence, picture = gate.index("wrong on 5 of 5 devices"), gate.index('class="interval"')
    assert sentence < picture
    assert gate.count('class="interval"') == 3


def test_a_viewer_sees_no_buttons(shared: Dashboard) -> None:
    with shared.client(Role.VIEWER) as viewer:
        assert 'action="/rollouts/' not in viewer.get("/rollouts/r5-address-match").text
    with shared.client(Role.OPERATOR) as operator:
        assert 'action="/rollouts/r5-address-match/pause"' in operator.get("/rollouts/r5-address-match").text


@pytest.mark.parametrize("path", ["/devices/nope", "/models/nope", "/rollouts/nope"])
def test_what_does_not_exist_is_a_page_with_a_code(client: TestClient, path: str) -> None:
    page = client.get(path)
    assert page.status_code == 404
    assert "<code>not_found</code>" in page.text


def test_a_name_that_leads_nowhere_is_told_in_the_readers_language(client: TestClient) -> None:
    page = client.get("/rollouts/nope", headers={"Accept-Language": "zh"}).text
    assert "<p>没有发布 &#39;nope&#39;</p>" in page


def test_a_cursor_that_is_not_ours_is_refused(client: TestClient) -> None:
    assert client.get("/fleet?cursor=%21%21").status_code == 422


def test_an_empty_server_says_what_to_do_next(tmp_path: Path) -> None:
    make_directory(tmp_path / "data", clock.now(), empty=True)
    with open_dashboard(tmp_path / "data") as dashboard, dashboard.client() as client:
        assert "wavegate device token" in client.get("/fleet").text
        assert "wavegate model import" in client.get("/models").text
        assert "wavegate rollout create" in client.get("/rollouts").text


def test_pages_stay_small(client: TestClient) -> None:
    """What a first visit transfers, compressed: at most 60 KB for the fleet and 120 KB for a device."""
    for path, most in (("/fleet", 60_000), ("/devices/locker-hz-01", 120_000)):
        page = client.get(path, headers={"Accept-Encoding": "gzip"})
        total = int(page.headers["content-length"])
        for name in re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text):
            asset = client.get(name, headers={"Accept-Encoding": "gzip"})
            total += int(asset.headers["content-length"])
        if "data-series" in page.text:
            total += len(client.get("/series/device/locker-hz-01?range=24h", headers={"Accept-Encoding": ""}).content)
        assert total <= most, f"{path}: {total} bytes"
