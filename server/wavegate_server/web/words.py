"""Sentences and tables that templates show but do not compute. Pure: everything comes in, text goes out."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from wavegate_server.adapters.reads.device import WhyStep
from wavegate_server.adapters.reads.fleet import VersionShare
from wavegate_server.web import formats
from wavegate_server.web.i18n import Translate
from wavegate_server.web.pictures import Change, changes
from wavegate_server.web.sentences import Speaker
from wavegate_shared.manifest import Comparison
from wavegate_shared.metrics import Direction, Metric
from wavegate_shared.states import AssignmentState

__all__ = ["Compared", "ComparisonRow", "Words", "difference", "in_order", "policy_text", "version_counts"]

_ORDER = (
    AssignmentState.PROVEN,
    AssignmentState.SWAPPED,
    AssignmentState.ACCEPTED,
    AssignmentState.PUBLISHED,
    AssignmentState.SCHEDULED,
    AssignmentState.DEFERRED,
    AssignmentState.SKIPPED,
    AssignmentState.ROLLED_BACK,
    AssignmentState.TIMED_OUT,
    AssignmentState.FAILED,
)
_TRANSLATED = {"state": "rollout", "verdict": "verdict", "code": "code"}
_COMPARISON = {
    "size": "compare.size",
    "latency p50": "compare.latency",
    "latency p95": "compare.latency95",
    "peak memory": "compare.memory",
    "CPU time per inference": "compare.cpu",
}
_NUMBERED_WAVE = re.compile(r"wave ([0-9]+)")
"""The name of a wave that was given none (`core.waves`)."""
_SAME = 0.005
"""A change of a size or of the metric that is smaller is none."""
_SAME_MEASURED = 0.02
"""The same of what a clock or the kernel measured: it differs by as much from run to run."""
_MEASURED = frozenset({"latency p50", "latency p95", "peak memory", "CPU time per inference"})


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """One row of the before/after table. `tone`: good, bad or empty (hardly a change); `bar` None: nothing to draw."""

    label: str
    before: str
    after: str
    change: str
    tone: str
    bar: Change | None = None


class Compared(Protocol):
    """What has a before/after table."""

    @property
    def comparison(self) -> tuple[Comparison, ...]:
        """Its rows."""

    @property
    def metric(self) -> Metric:
        """What it is judged by."""


@dataclass(frozen=True, slots=True)
class Words:
    """The computed texts of one language."""

    t: Translate

    @property
    def speaker(self) -> Speaker:
        """Says stored sentences."""
        return Speaker(self.t("lang"), self.label, self.wave_name)

    def label(self, kind: str, value: str) -> str:
        """The name of a state, code or the like; one that no catalogue knows shows as it is."""
        try:
            return self.t(f"{kind}.{value}")
        except KeyError:
            return value.replace("_", " ")

    def why(self, step: WhyStep) -> str:
        """A step of the chain of reasons."""
        places = {name: self._place(name, value) for name, value in step.values.items()}
        if "sentence" in places:
            places["sentence"] = self.speaker.say(places["sentence"], step.said).text
        key = f"why.{step.code}"
        if step.code in ("refused", "reverted", "deferred", "broken") and not step.values.get("detail"):
            key += "_short"
        return self.t(key, **places)

    def wave_name(self, name: str) -> str:
        """A wave's name; those that Wavegate gives are translated, an operator's own are not."""
        if name in ("canary", "rest"):
            return self.t(f"wave.name.{name}")
        number = _NUMBERED_WAVE.fullmatch(name)
        return self.t("wave.title", n=number[1]) if number else name

    def comparison(self, compared: Compared) -> list[ComparisonRow]:
        """The before/after table of a version or a compression job; its bars share one scale."""
        relative = [_relative(row) for row in compared.comparison]
        return [
            self._row(row, compared.metric, change, bar)
            for row, change, bar in zip(compared.comparison, relative, changes(relative), strict=True)
        ]

    def _row(self, row: Comparison, metric: Metric, relative: float | None, bar: Change | None) -> ComparisonRow:
        label = self.t(_COMPARISON[row.name]) if row.name in _COMPARISON else self.label("metric", row.name)
        before, after = _amount(row.before, row.unit), _amount(row.after, row.unit)
        if row.before is None or row.after is None:
            return ComparisonRow(label, before, after, formats.NONE, "")
        difference = row.after - row.before if relative is None else relative
        if row.unit == "share":
            text = formats.points(difference)
        elif relative is None:
            text = formats.NONE  # nothing before: no percentage
        else:
            text = f"{'+' if relative >= 0 else '−'}{abs(100 * relative):.1f} %"
        up = row.name == metric.name and metric.direction is Direction.UP
        same = _SAME_MEASURED if row.name in _MEASURED else _SAME
        tone = "" if abs(difference) < same else "good" if (difference > 0) is up else "bad"
        return ComparisonRow(label, before, after, text, tone, bar)

    def _place(self, name: str, value: str) -> str:
        kind = _TRANSLATED.get(name)
        return self.label(kind, value) if kind and value else value


def _relative(row: Comparison) -> float | None:
    """The change of what has a bar: shares have none, 98 % beside 97 % says nothing as a length."""
    if row.unit == "share" or row.after is None or not row.before:
        return None
    return (row.after - row.before) / row.before


def in_order(devices: Mapping[str, int]) -> dict[str, int]:
    """Counts by assignment state, in the order in which a device goes through them."""
    return {state.value: devices[state.value] for state in _ORDER if devices.get(state.value)}


def version_counts(shares: Sequence[VersionShare]) -> dict[str, int]:
    """Devices by version, for the stacked bar."""
    return {f"{share.model} v{share.version}": share.devices for share in shares}


def difference(value: float | None, unit: str, *, sign: bool = True) -> str:
    """A loss or margin: percentage points for shares, else the unit; positive is worse."""
    if value is None:
        return formats.NONE
    if unit == "share":
        text = formats.points(value)
        return text if sign else text.lstrip("+−")
    text = formats.signed(value) if sign else formats.number(abs(value))
    return f"{text} {unit}"


def policy_text(value: Any) -> str:
    """A policy's value on one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {policy_text(part)}" for name, part in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(policy_text(part) for part in value)
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _amount(value: float | None, unit: str) -> str:
    if value is None:
        return formats.NONE
    return formats.percent(value, 2) if unit == "share" else f"{formats.number(value)} {unit}"
