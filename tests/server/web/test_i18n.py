"""Two catalogues with the same keys, and no text in a template that is in neither."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from string import Formatter

import pytest

import wavegate_server.web
from wavegate_server.adapters.reads.device import SENTENCES
from wavegate_server.adapters.reads.fleet import Health
from wavegate_server.adapters.reads.series import RANGES
from wavegate_server.adapters.store.compress_jobs import JobState
from wavegate_server.adapters.store.tokens import Role
from wavegate_server.core.gate.verdict import Verdict
from wavegate_server.core.rollout.actions import ACTIONS
from wavegate_server.web import i18n
from wavegate_shared.errors import CODES
from wavegate_shared.metrics import SCORERS
from wavegate_shared.states import AssignmentState, DeviceState, Outcome, RolloutState, WaveState

TEMPLATES = sorted((Path(wavegate_server.web.__file__).parent / "templates").glob("*.html"))
ATTRIBUTES = re.compile(r'\b(?:title|alt|placeholder|aria-label|data-none|data-swap|data-revert)="([^"]*)"')
NEUTRAL = {"Wavegate", "v", "p50", "p99", "UTC"}
ENUMS: dict[str, Iterable[str]] = {
    "health": Health,
    "phase": DeviceState,
    "outcome": Outcome,
    "rollout": RolloutState,
    "wave": WaveState,
    "assignment": AssignmentState,
    "verdict": Verdict,
    "compression": JobState,
    "role": Role,
    "range": RANGES,
    "action": ACTIONS,
    "metric": SCORERS,
    "why": SENTENCES,
    "rollout.no_reason": RolloutState,
    "code": [name for name, code in CODES.items() if code.kind in ("TrustError", "TransferError", "DeviceError")],
}


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def visible(source: str) -> str:
    """What a template shows by itself: no comments, expressions, statements, tags, entities."""
    source = re.sub(r"{#.*?#}|{%.*?%}|{{.*?}}", " ", source, flags=re.S)
    shown = " ".join(ATTRIBUTES.findall(source))
    source = re.sub(r"<code\b.*?</code>", " ", source, flags=re.S)  # commands are the same in every language
    return re.sub(r"<[^>]*>|&\w+;", " ", source, flags=re.S) + " " + shown


def test_catalogues_have_the_same_keys_and_places() -> None:
    first, *others = (i18n.catalogue(language) for language in i18n.LANGUAGES)
    for other in others:
        assert set(first) == set(other)
        assert [key for key in first if places(first[key]) != places(other[key])] == []


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_template_has_text_of_its_own(template: Path) -> None:
    words = re.findall(r"[^\W\d_][\w-]*", visible(template.read_text(encoding="utf-8")))
    assert [word for word in words if word not in NEUTRAL] == []


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_every_key_a_template_names_is_in_the_catalogue(template: Path) -> None:
    keys = set(re.findall(r"\bt\('([\w.]+)'", template.read_text(encoding="utf-8")))
    assert {key for key in keys if not key.endswith(".") and key not in i18n.catalogue("en")} == set()


@pytest.mark.parametrize("kind", ENUMS)
def test_every_state_and_code_has_a_name(kind: str) -> None:
    assert [str(name) for name in ENUMS[kind] if f"{kind}.{name}" not in i18n.catalogue("en")] == []


def test_the_check_sees_untranslated_text() -> None:
    assert "Hello" in visible('<p title="Well">{{ t("x") }} Hello</p>')
    assert "Well" in visible('<p title="Well">{{ t("x") }} Hello</p>')


@pytest.mark.parametrize(
    ("cookie", "header", "language"),
    [
        (None, None, "en"),
        (None, "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        (None, "fr, en;q=0.5, zh;q=0.7", "zh"),
        (None, "de", "en"),
        (None, "zh;q=0", "en"),
        (None, "zh;q=x,;;=", "en"),
        ("zh", "en", "zh"),
        ("xx", "zh", "zh"),
    ],
)
def test_choose(cookie: str | None, header: str | None, language: str) -> None:
    assert i18n.choose(cookie, header) == language


def test_ago() -> None:
    now, t = datetime(2026, 3, 1, tzinfo=UTC), i18n.translator("en")
    spans = [timedelta(seconds=-5), timedelta(seconds=59), timedelta(minutes=61), timedelta(days=3)]
    assert [i18n.ago(t, now - span, now) for span in spans] == ["0 s ago", "59 s ago", "1 h ago", "3 d ago"]
    assert i18n.ago(t, None, now) == "never"
