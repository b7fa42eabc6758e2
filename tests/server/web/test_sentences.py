"""Stored sentences in the reader's language."""

import re
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.support.seed_gate import bad_decision, good_decision, open_decision, refused_decision
from wavegate_server.core.english import ENGLISH
from wavegate_server.core.sentences import Sentence, places
from wavegate_server.web.i18n import LANGUAGES, translator
from wavegate_server.web.sentences import Spoken, sentence_catalogue
from wavegate_server.web.words import Words

TERMS = {
    "p95",
    "ms",
    "MB",
    "MFLOPs",
    "AUC",
    "torch",
    "Transformer",
    "WAVEGATE",
    "RUN",
    "SOURCE",
    "true",
    "drop",
    "pt",
    "error",
    "LIMIT",
    "UTC",
}
"""What Chinese writes as English does."""
DEVICES = [f"d{n}" for n in range(5)]
EN, ZH = (Words(translator(language)).speaker for language in ("en", "zh"))


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "en"])
def test_every_language_has_the_codes_and_places_of_english(language: str) -> None:
    texts = sentence_catalogue(language)["sentences"]
    assert set(texts) == set(ENGLISH)
    assert [code for code, text in texts.items() if places(text) != places(ENGLISH[code])] == []


@pytest.mark.parametrize("code", sorted(ENGLISH))
def test_no_sentence_is_left_in_english(code: str) -> None:
    said = re.findall(r"[A-Za-z]{4,}", re.sub(r"\{\w+\}", "", ENGLISH[code]))
    text = sentence_catalogue("zh")["sentences"][code]
    assert not said or re.search(r"[\u4e00-\u9fff]", text)
    assert set(re.findall(r"[A-Za-z]{2,}", re.sub(r"\{\w+\}|\(pip.*?\)|（pip.*?）|`.*?`", "", text))) <= TERMS


@pytest.mark.parametrize(
    ("decided", "text"),
    [
        (bad_decision, "5 台设备中 5 台变差：线上准确率从 97.9 % 降至 92.9 %（界限 0.5 pt），同时变慢：回滚"),
        (refused_decision, "locker-hz-01 拒绝了 v3（黄金集未通过，accuracy 0.712 < 0.965）：回滚"),
        (good_decision, "已证明 5 台设备均未变差：放行"),
        (open_decision, "正在观察 5 台设备：目前没有告警；该批次所有设备都有结果后开始观察期"),
    ],
)
def test_the_gate_speaks_the_readers_language(decided: Any, text: str) -> None:
    _, sentence, evidence = decided(DEVICES)
    said = evidence["decision"]["said"]
    assert ZH.say(sentence, said) == Spoken(text)
    assert EN.say(sentence, said) == Spoken(sentence)


def test_no_alarm_is_not_proven() -> None:
    """The Chinese page once said of the one that it was the other."""
    no_alarm = Sentence("gate.no_alarm", devices=1, caveats=[Sentence("caveat.no_controls")])
    assert (
        ZH.sentence(no_alarm).text
        == "整个观察期内 1 台设备没有告警（没有未更新的设备可作对照，只能与自身过去比较）：放行"
    )
    assert "未变差" not in ZH.sentence(no_alarm).text


@pytest.mark.parametrize("said", [None, {}, {"code": "of.later", "params": {}}, Sentence("gate.nobody").as_json()])
def test_a_text_without_its_code_is_shown_as_it_is(said: dict[str, Any] | None) -> None:
    assert ZH.say("an old sentence", said) == Spoken("an old sentence", "en")
    assert EN.say("an old sentence", said) == Spoken("an old sentence")
    assert ZH.say("", said) == Spoken("")


@pytest.mark.parametrize("path", ["/fleet", "/rollouts", *(f"/rollouts/r{n}-address-match" for n in (1, 2, 4, 5))])
def test_a_whole_page_is_in_one_language(client: TestClient, path: str) -> None:
    page = client.get(path, headers={"Accept-Language": "zh"}).text
    assert 'lang="en"' not in page.replace(' hreflang="en" lang="en"', "")
    assert re.findall(r"promoted|rolled back|proven|no alarm|of \d+ devices", re.sub(r"<[^>]*>", " ", page)) == []


def test_the_event_log_names_outcomes(client: TestClient) -> None:
    page = client.get("/devices/locker-hz-01", headers={"Accept-Language": "zh"}).text
    assert "<b>proven</b>" not in page


def test_a_devices_chain_of_reasons_is_in_the_readers_language(client: TestClient) -> None:
    page = client.get("/devices/locker-hz-01", headers={"Accept-Language": "zh"}).text
    assert "第 1 批之后的门禁结论为放行：已证明 5 台设备均未变差：放行" in page


def test_a_jobs_state_is_told_in_the_readers_language() -> None:
    ended = Sentence("job.ended_signal", number=9, line=Sentence("job.empty_log"))
    text = "再次尝试：进程没有给出结果就结束了（信号 9）：日志为空"
    assert ZH.sentence(Sentence("job.again", ended=ended)).text == text


def test_a_rollback_under_way_names_who_is_late() -> None:
    late = [Sentence("late.never_seen", device="a"), Sentence("late.failed", device="b", code="load_failed")]
    who = Sentence("list.more", names=late, more=2)
    cause = Sentence("action.rolled_back", name="ana", because="投诉")
    said = Sentence("rollout.rolling_back", cause=cause, progress=Sentence("rollout.back", count=1), waiting=4, who=who)
    assert ZH.sentence(said).text == (
        "由 ana 回滚：投诉；1 台已恢复之前的版本，4 台尚未恢复：a 离线（从未上报）、b 未能恢复（加载失败）等，另有 2 台"
    )


def test_candidates_and_notes_of_a_job_are_in_the_readers_language(client: TestClient) -> None:
    page = client.get("/models/address-match", headers={"Accept-Language": "zh"}).text
    assert "原始模型；未达到 size=-70%" in page
    assert "<li>在 256 个校准样本上选择，在另外 2000 个样本上评判</li>" in page
    assert '<span class="under" lang="en">it did not finish within 300 s</span>' in page
