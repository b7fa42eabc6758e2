"""The dashboard in a real browser: Debian's Chromium through Playwright, over HTTPS on loopback.

Skipped, with the reason printed, where Chromium or npm's axe-core is not installed.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import CHROMIUM, Visit, open_browser, settled
from tests.support.web_server import Dashboard, make_directory, open_dashboard, serve
from wavegate_server.adapters import clock
from wavegate_server.adapters.database.connection import write
from wavegate_server.adapters.database.tables import Device, DeviceSlot, Revision
from wavegate_server.adapters.store.compress_jobs import Step, note
from wavegate_server.web import vendor

AXE = Path(__file__).parents[2] / "server" / "node_modules" / "axe-core" / "axe.min.js"
PAGES = (
    "/fleet",
    "/devices/locker-hz-01?range=1h",
    "/models",
    "/models/address-match",
    "/rollouts",
    "/rollouts/r4-address-match",
    "/rollouts/r5-address-match",
)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH: apt-get install chromium"),
    pytest.mark.skipif(bool(vendor.missing()), reason=f"no JavaScript libraries. {vendor.ADVICE}"),
    pytest.mark.timeout(180),
]


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    directory = tmp_path_factory.mktemp("browser") / "data"
    make_directory(directory, clock.now(), minutes=90)
    with open_dashboard(directory) as opened:
        yield opened


@pytest.fixture(scope="module")
def url(dashboard: Dashboard) -> Iterator[str]:
    with serve(dashboard) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as chromium:
        yield chromium


@pytest.fixture
def visit(browser: Browser, dashboard: Dashboard, url: str) -> Iterator[Visit]:
    opened = Visit(browser, dashboard.cookie(), url)
    yield opened
    opened.close()
    assert opened.foreign == []
    assert opened.errors == []


def serious_findings(page: Page) -> list[Any]:
    """What axe-core calls serious or critical in WCAG A and AA: rule, then the elements."""
    found = page.evaluate("axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']})")
    serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
    return [
        (v["id"], [(services["html"][:160], services["failureSummary"]) for services in v["nodes"]]) for v in serious
    ]


@pytest.mark.parametrize("path", [*PAGES, "/login", "/audit"])
def test_accessible_in_both_themes_and_no_wider_than_a_phone(visit: Visit, path: str) -> None:
    if not AXE.is_file():
        pytest.skip("no axe-core in server/node_modules: npm ci --prefix server")
    page = visit.open(path, reduced_motion="reduce")  # no colour is looked at half-way
    if path == "/audit":
        visit.forgive("404")
    elif path != "/login":
        settled(page)
    page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true })")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    for theme in ("light", "dark"):
        page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
        assert (theme, serious_findings(page)) == (theme, [])
    page.set_viewport_size({"width": 420, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= 420


@pytest.mark.parametrize(
    "path", ["/fleet", "/devices/locker-hz-01?range=1h", "/models/address-match", "/rollouts/r4-address-match"]
)
def test_chinese_fits_a_phone_too(visit: Visit, path: str) -> None:
    page = visit.open(path, width=420, locale="zh-CN")
    settled(page)
    expect(page.locator("html")).to_have_attribute("lang", "zh")
    assert page.evaluate("document.documentElement.scrollWidth") <= 420


@pytest.mark.parametrize(("path", "most"), [("/fleet", 60_000), ("/devices/locker-hz-01?range=1h", 120_000)])
def test_a_first_visit_is_small(visit: Visit, path: str, most: int) -> None:
    page = visit.open(path)
    settled(page)
    print(f"{path}: {visit.bytes} bytes")
    assert visit.bytes <= most


def test_a_change_on_the_server_shows_without_a_reload(visit: Visit, dashboard: Dashboard) -> None:
    page = visit.open("/fleet?q=rtm-06")
    settled(page)
    page.evaluate("window.sameDocument = true")
    with write(dashboard.context.engine) as session:
        device = session.get_one(Device, "locker-rtm-06")
        device.last_seen = clock.now()
        session.get_one(DeviceSlot, (device.id, "address-match")).state = "broken"
        session.add(device)
        session.get_one(Revision, 1).value += 1
    expect(page.locator("#d-locker-rtm-06")).to_contain_text("Needs attention", timeout=10_000)
    assert page.evaluate("window.sameDocument")
    assert page.url.endswith("/fleet?q=rtm-06")


def test_filters_live_in_the_url_and_survive_a_tick(visit: Visit, dashboard: Dashboard) -> None:
    page = visit.open("/fleet")
    settled(page)
    page.locator("#q").press_sequentially("hz", delay=20)
    expect(page.locator("tbody tr")).to_have_count(6)
    page.select_option("select[name=class]", "pi4")
    expect(page.locator("tbody tr")).to_have_count(3)
    expect(page).to_have_url(re.compile(r"/fleet\?q=hz&class=pi4$"))
    ticked = page.expect_response(lambda response: response.request.headers.get("wavegate-tick") == "1")
    with ticked, write(dashboard.context.engine) as session:
        session.get_one(Revision, 1).value += 1
    expect(page.locator("tbody tr")).to_have_count(3)
    assert page.input_value("#q") == "hz"
    page.reload()
    expect(page.locator("tbody tr")).to_have_count(3)


def test_a_hidden_tab_holds_no_connection(visit: Visit) -> None:
    page = visit.open("/fleet")
    settled(page)
    hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true});"
    page.evaluate((hide % "true") + "document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("#live-state")).to_have_text("paused")
    with page.expect_request(lambda request: request.url.endswith("/events")):
        page.evaluate((hide % "false") + "document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("#live-state")).to_have_text("live")


def test_charts_follow_the_theme_and_join_their_cursors(visit: Visit) -> None:
    page = visit.open("/devices/locker-hz-01?range=1h", color_scheme="light")
    settled(page)
    before = page.locator(".chart canvas").first.evaluate("canvas => canvas.toDataURL()")
    page.locator("#theme").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.wait_for_function(
        "before => document.querySelector('.chart canvas')?.toDataURL() !== before", arg=before, timeout=5_000
    )
    page.locator(".chart .u-over").first.hover(position={"x": 60, "y": 60})
    values = page.locator(".chart .u-legend tr:nth-child(2) .u-value")
    for i in range(4):
        expect(values.nth(i)).to_contain_text(re.compile(r"\d"))


def test_rolling_back_asks_first_and_a_pause_pauses(visit: Visit, dashboard: Dashboard) -> None:
    page = visit.open("/rollouts/r2-address-match")
    settled(page)
    yes = page.get_by_role("button", name="Roll back every device")
    expect(yes).to_be_hidden()
    page.get_by_text("Roll back…").click()
    expect(yes).to_be_visible()
    ticked = page.expect_response(lambda response: response.request.headers.get("wavegate-tick") == "1")
    with ticked, write(dashboard.context.engine) as session:
        session.get_one(Revision, 1).value += 1
    expect(yes).to_be_visible()  # a refresh does not close what the reader opened
    visit.open("/rollouts/r5-address-match").get_by_role("button", name="Pause").click()
    last = visit.open("/rollouts/r5-address-match")
    expect(last.locator(".sentence")).to_contain_text("paused by a-admin")
    last.get_by_role("button", name="Resume").click()
    expect(last.locator(".title .badge")).to_have_text("running")


def test_a_compression_is_started_cancelled_and_its_candidates_are_drawn(visit: Visit) -> None:
    page = visit.open("/models/address-match")
    settled(page)
    charts = page.locator("#job-2 figure.pareto svg")
    expect(charts).to_have_count(2)
    expect(charts.first).to_be_visible()  # the newest with a result is open
    expect(page.locator("#job-1 figure.pareto svg").first).to_be_hidden()
    assert charts.first.locator(".point").count() == 8
    page.get_by_role("link", name="Compress…").click()
    page.get_by_role("textbox", name="Budget").fill("size=-50%,drop=3pt")
    page.get_by_role("button", name="Compress", exact=True).click()
    expect(page).to_have_url(re.compile("#job-6$"))
    job = page.locator("#job-6")
    expect(job).to_contain_text("size=-50%,drop=3pt")
    yes = job.get_by_role("button", name="Cancel this job")
    expect(yes).to_be_hidden()
    job.get_by_text("Cancel…").click()
    yes.click()
    expect(page.locator("#job-6")).to_contain_text("cancelled")


def test_a_refused_form_keeps_what_was_typed_and_stays_up_to_date(visit: Visit, dashboard: Dashboard) -> None:
    page = visit.open("/models/address-match")
    settled(page)
    budget = page.get_by_role("textbox", name="Budget")
    budget.fill("size=half")
    page.get_by_role("button", name="Compress", exact=True).click()
    expect(page.locator("#budget-error")).to_contain_text("budget item 'size=half' is not understood")
    visit.forgive("422")
    expect(budget).to_have_value("size=half")
    expect(budget).to_be_focused()
    expect(budget).to_be_in_viewport()
    expect(page).to_have_url(re.compile("/models/address-match$"))  # to load again asks for the page, not the form
    ticked = page.expect_response(lambda response: response.request.headers.get("wavegate-tick") == "1")
    with ticked as answer, write(dashboard.context.engine) as session:
        session.get_one(Revision, 1).value += 1
    assert answer.value.ok
    expect(page.locator("#budget-error")).to_be_visible()
    if AXE.is_file():
        page.evaluate(AXE.read_text(encoding="utf-8"))
        assert serious_findings(page) == []


def test_the_progress_of_a_job_shows_without_a_reload(visit: Visit, dashboard: Dashboard) -> None:
    page = visit.open("/models/address-match")
    settled(page)
    page.get_by_role("textbox", name="Budget").fill("size=-33%")
    with write(dashboard.context.engine) as session:
        note(session, 4, Step("quantising", "a-new-candidate", "", "", 0.5), now=clock.now(), bump=True)
    expect(page.locator("#job-4")).to_contain_text("a-new-candidate", timeout=10_000)
    expect(page.get_by_role("textbox", name="Budget")).to_have_value("size=-33%")  # what was typed stays


def test_without_javascript_no_page_claims_to_connect(visit: Visit) -> None:
    page = visit.open("/fleet", java_script_enabled=False)
    expect(page.locator("tbody tr").first).to_be_visible()
    expect(page.locator("#live-state")).to_be_hidden()


def test_the_keyboard_reaches_everything(visit: Visit) -> None:
    page = visit.open("/fleet")
    settled(page)
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    page.locator("tbody th a").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("locker-den-01")


def test_the_language_switch_comes_back_to_the_page(visit: Visit) -> None:
    page = visit.open("/models/address-match")
    page.get_by_role("link", name="中文").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh")
    expect(page).to_have_url(re.compile("/models/address-match$"))
    expect(page.locator(".sections a").first).to_have_text("设备群")
