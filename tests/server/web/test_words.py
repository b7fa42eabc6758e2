"""Texts that are computed."""

from types import SimpleNamespace

import pytest

from tests.support.web_server import Dashboard
from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.database.tables import RolloutWave
from wavegate_server.adapters.reads.device import WhyStep
from wavegate_server.adapters.reads.models import version_rows
from wavegate_server.core.sentences import Sentence
from wavegate_server.web.i18n import translator
from wavegate_server.web.words import ComparisonRow, Words, difference, in_order, policy_text
from wavegate_shared.manifest import Comparison
from wavegate_shared.metrics import Metric

EN = Words(translator("en"))


def compared(dashboard: Dashboard, number: int) -> dict[str, ComparisonRow]:
    with read(dashboard.context.engine) as session:
        version = next(v for v in version_rows(session, "address-match") if v.number == number)
    return {row.label: row for row in EN.comparison(version)}


def test_the_comparison_says_what_got_better_and_worse(shared: Dashboard) -> None:
    rows = compared(shared, 4)
    assert (rows["Size"].change, rows["Size"].tone) == ("−71.5 %", "good")
    assert (rows["Accuracy"].before, rows["Accuracy"].change) == ("98.36 %", "−5.36 pt")
    assert (rows["Accuracy"].tone, rows["Accuracy"].bar) == ("bad", None)


def test_bars_draw_the_change_on_one_scale(shared: Dashboard) -> None:
    rows = compared(shared, 3)
    assert (rows["Peak memory"].change, rows["Peak memory"].tone) == ("+40.0 %", "bad")
    size, memory = rows["Size"].bar, rows["Peak memory"].bar
    assert size is not None
    assert memory is not None
    assert (memory.x, memory.width) == (50, 20)
    assert size.x + size.width == pytest.approx(50)
    assert size.width == pytest.approx(100 / 2 * 0.739, abs=0.1)


def test_what_differs_from_run_to_run_is_neither_good_nor_bad(shared: Dashboard) -> None:
    memory = compared(shared, 5)["Peak memory"]
    assert (memory.change, memory.tone) == ("+1.3 %", "")
    assert memory.bar is not None
    assert memory.bar.width < 2


def test_nothing_before_gives_no_percentage() -> None:
    table = (
        Comparison(name="size", unit="MB", before=0.0, after=1.0),
        Comparison(name="f1", unit="", before=None, after=1.0),
    )
    rows = EN.comparison(SimpleNamespace(comparison=table, metric=Metric("accuracy")))
    assert [(row.change, row.bar) for row in rows] == [("–", None), ("–", None)]


@pytest.mark.parametrize(
    ("detail", "text"), [("", "golden set failed."), ("0.7 < 0.9", "golden set failed (0.7 < 0.9).")]
)
def test_a_reason_without_detail_has_no_empty_brackets(detail: str, text: str) -> None:
    values = {"version": "3", "active": "2", "code": "golden_failed", "detail": detail}
    assert EN.why(WhyStep(None, "refused", "", values)).endswith(text)


def test_an_unknown_name_shows_as_it_is() -> None:
    assert EN.label("code", "brand_new") == "brand new"
    assert EN.wave_name("late lockers") == "late lockers"


def test_a_wave_without_a_name_of_its_own_is_numbered_in_the_readers_language() -> None:
    zh = Words(translator("zh"))
    assert [words.wave_name("wave 2") for words in (EN, zh)] == ["Wave 2", "第 2 批"]
    assert zh.wave_name("wave two") == "wave two"
    assert (
        zh.speaker.sentence(Sentence("rollout.wave", wave="wave 2", size=6, total=23)).text
        == "第 2 批：23 台设备中的 6 台"
    )


def test_a_waves_number_is_said_once(dashboard: Dashboard) -> None:
    with write(dashboard.context.engine) as session:
        session.get_one(RolloutWave, ("r5-address-match", 1)).name = "wave 2"
    with dashboard.client() as client:
        assert "<h2>Wave 2</h2>" in client.get("/rollouts/r5-address-match").text


def test_counts_come_in_the_order_of_a_devices_way() -> None:
    assert list(in_order({"failed": 1, "proven": 2, "scheduled": 0, "published": 3})) == [
        "proven",
        "published",
        "failed",
    ]


def test_differences() -> None:
    assert [difference(v, "share") for v in (0.005, None)] == ["+0.50 pt", "–"]
    assert difference(-0.25, "mm") == "−0.25 mm"
    assert difference(0.005, "share", sign=False) == "0.50 pt"


def test_policy_values_on_one_line() -> None:
    assert policy_text({"accuracy": 0.005, "p99": 1.0}) == "accuracy 0.005, p99 1"
    assert [policy_text(v) for v in (True, ["a", "b"], 3)] == ["true", "a, b", "3"]
