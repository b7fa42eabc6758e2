"""The gate's data: what goes into a decision and what comes out. Judging is `gate`, words are `wording`."""

from enum import StrEnum
from typing import Any

import msgspec

from wavegate_server.core.gate.evidence import Telemetry
from wavegate_server.core.sentences import Sentence, sentence_from
from wavegate_shared.manifest import Slo
from wavegate_shared.metrics import Direction

__all__ = ["Decision", "Failure", "GateEvidence", "Guards", "MetricResult", "Rules", "Verdict", "Waiting"]


class Verdict(StrEnum):
    """What happens to the wave. `inconclusive` is said of a single metric only; it leads to hold."""

    PROMOTE = "promote"
    HOLD = "hold"
    ROLLBACK = "rollback"
    INCONCLUSIVE = "inconclusive"


class Failure(msgspec.Struct, frozen=True):
    """A device that did not take the version, or gave it back."""

    device: str
    code: str
    detail: str = ""


class Guards(msgspec.Struct, frozen=True, kw_only=True):
    """Counts from the rollout's own books; they need no telemetry.

    Attributes:
        size: devices of the wave; `budget`: how many may fail.
        failed: those that did; `touched`: devices of the whole rollout that run or ran the version.
        silent: updated devices not heard of since too long; `controls`, `silent_controls`: the same of untouched ones.
    """

    size: int
    budget: int
    failed: list[Failure] = []
    touched: int = 0
    silent: list[str] = []
    controls: int = 0
    silent_controls: int = 0


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The policy's part in a decision. `comparisons`: metrics x waves, over which `alpha` is divided.

    `judged_before`: the fleet runs the version, so one device that cannot is no verdict on it.
    """

    alpha: float
    comparisons: int
    min_blocks: int
    few_canaries: str
    wide_factor: float
    at_soak_end: str
    required_metrics: list[str]
    idle_wave: str | None = None
    slo: Slo = Slo()
    judged_before: bool = False


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """Devices of the wave that serve the version and wait for live requests.

    Attributes:
        devices: how many; `fewest`: live requests of the quietest of them, of `requests` that are needed.
        own: where live requests do not come, the devices' own ones prove the version.
        until: the first of them counts as failed then, as `2026-03-01 12:00:00` in UTC.
    """

    devices: int
    fewest: int
    requests: int
    own: bool
    until: str


class GateEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a decision depends on. `telemetry` None: the tables could not give any.

    Attributes:
        first_install: no device of the wave ran an earlier version.
        soak_over: the wave settled and was watched for the whole soak.
        approved_by: the person who approved promoting this wave, or empty.
        soak_ends: when the soak will be over, as `2026-03-01 12:00:00` in UTC; empty while devices of the wave are under way,
            and in rows of older releases.
        waiting: what devices on probation wait for; None when they do not, or have not said so.
    """

    rollout: str
    model: str
    version: int
    wave: str
    soak_over: bool
    first_install: bool
    approved_by: str
    rules: Rules
    guards: Guards
    telemetry: Telemetry | None
    soak_ends: str = ""
    waiting: Waiting | None = None


class MetricResult(msgspec.Struct, frozen=True, kw_only=True):
    """One metric's outcome: `mean` loss per block with `radius` (None: unknown), against `margin`, in the metric's unit.

    Attributes:
        why: why it was not judged, or empty; `why_code`: the same as a sentence's code, empty in rows of older releases.
    """

    name: str
    label: str
    unit: str
    direction: Direction
    verdict: Verdict
    why: str
    mean: float | None
    radius: float | None
    margin: float
    blocks: int
    baseline_blocks: int
    devices: int
    worse: int
    controls: int
    before: float | None
    after: float | None
    why_code: str = ""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate says. `caveats` name every way in which the evidence is thinner than the method wants.

    Attributes:
        sentence, caveats: English texts.
        said, caveats_said: the same as codes with parameters (`Sentence.as_json`); empty in rows of older releases.
    """

    verdict: Verdict
    sentence: str
    results: list[MetricResult]
    caveats: list[str]
    said: dict[str, Any] = {}
    caveats_said: list[dict[str, Any]] = []

    @property
    def reason(self) -> Sentence:
        """The sentence with its code."""
        return sentence_from(self.said) or Sentence.plain(self.sentence)
