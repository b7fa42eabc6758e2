"""A rollout's policy: waves, soak, gate margins, deadlines and limits, parsed and checked once.

Every field has a default, so an empty policy is a careful production rollout; the demo and tests only shorten times. Stored as
JSON in `Rollout.policy`. Not here: what is done with it (`core.rollout`, `decision`).

Source: docs/adr/0005-gate-by-confidence-sequence.md; the gate's constants come from the simulations in tests/bench/gate.py.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from wavegate_shared.assignment import Probation
from wavegate_shared.errors import UsageError

__all__ = ["MIN_BASELINE_BLOCKS", "Policy", "WaveSpec", "dump_policy", "parse_policy"]

MIN_BASELINE_BLOCKS = 8
"""Below this many baseline blocks a comparison counts as short: wider margin, or a person decides."""

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_MAX_S = 10 * 365 * 86400.0
"""Ten years: an upper limit, so that no duration overflows a date (infinity is valid JSON to Python)."""
Seconds = Annotated[float, msgspec.Meta(gt=0, le=_MAX_S)]
Delay = Annotated[float, msgspec.Meta(ge=0, le=_MAX_S)]
Whole = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]
Margin = Annotated[float, msgspec.Meta(gt=0, le=1e9)]

_MARGINS = {"accuracy": 0.005, "p99": 0.005, "errors": 0.005}


class WaveSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One wave: `count` more devices, or on up to `percent` of all of them (cumulative)."""

    name: str = ""
    count: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] | None = None
    percent: Annotated[float, msgspec.Meta(gt=0, le=100)] | None = None


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a rollout proceeds.

    Attributes:
        waves: in order; a last wave with all other devices is added when it is missing.
        block_s, baseline_blocks: the gate's time grid, and how many blocks before the wave it compares with.
        soak_s: how long a wave is watched after its last device settled.
        min_blocks: least number of blocks after the swap before a wave may be promoted.
        lag_s: how late telemetry may come in before a block counts as complete.
        margins: how much worse counts as worse, by metric name, in the metric's unit (`p99`, `errors`: share of requests).
        alpha: chance that an equally good version is rolled back, over the whole rollout.
        few_canaries: with fewer than 5 canaries or a short baseline: `human` waits for approval, `wide` decides alone;
            both only roll back beyond `wide_factor` x margin.
        idle_wave: what becomes of a wave without an alarm in which devices had no live traffic; they passed golden set, bench and
            guards: `promote`; `human` waits for approval; `hold` waits for live requests. Not set: promote where at least one
            device served live requests or nothing ran before, else wait for approval.
        downgrade: why devices may go below the version they run, as a person said it; empty: they may not.
        late_joiners: `follow`: the completed rollout leaves a fleet default behind, which devices get that come later; `ignore`: it does not.
        watch_s: for so long after the rollout is completed, devices that proved the version with too few live requests are judged on
            the ones that come; 0 switches it off.
        at_soak_end: what "no alarm, but not proven equal either" means when the soak is over.
        required_metrics: missing evidence for one of these holds the wave; another metric that was never measured is skipped.
        deadline_s: from publish to accept, and again from accept to the report.
        rollback_deadline_s: how long a rollback waits for devices before the rollout is closed (they still get the order).
        grace_s: after the controller (re)started or a rollout resumed, no deadline or heartbeat counts for this long.
        max_install_failures, max_failure_share: a wave's failure budget is the larger of the count and its share of devices.
        max_in_flight: at most this many devices of a wave at work at a time; 0 is the whole wave.
        heartbeat_s: silence of a device after its swap that counts as missing.
        start_at: not before this time.
    """

    waves: tuple[WaveSpec, ...] = (
        WaveSpec(name="canary", count=5),
        WaveSpec(percent=10.0),
        WaveSpec(percent=50.0),
        WaveSpec(percent=100.0),
    )
    block_s: Seconds = 900.0
    baseline_blocks: Annotated[int, msgspec.Meta(ge=MIN_BASELINE_BLOCKS, le=1000)] = 96
    soak_s: Delay = 3600.0
    min_blocks: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 4
    lag_s: Delay | None = None
    margins: dict[str, Margin] = msgspec.field(default_factory=lambda: dict(_MARGINS))
    alpha: Annotated[float, msgspec.Meta(gt=0, le=0.2)] = 0.01
    few_canaries: Literal["human", "wide"] = "human"
    wide_factor: Annotated[float, msgspec.Meta(ge=1, le=1e6)] = 10.0
    idle_wave: Literal["promote", "hold", "human"] | None = None
    downgrade: Annotated[str, msgspec.Meta(max_length=300)] = ""
    late_joiners: Literal["follow", "ignore"] = "follow"
    watch_s: Delay = 86400.0
    at_soak_end: Literal["promote", "hold"] = "promote"
    required_metrics: tuple[str, ...] = ("p99", "errors")
    deadline_s: Seconds = 3600.0
    rollback_deadline_s: Seconds = 3600.0
    grace_s: Delay = 60.0
    max_install_failures: Whole = 0
    max_failure_share: Share = 0.1
    max_in_flight: Whole = 0
    heartbeat_s: Seconds = 900.0
    probation: Probation = Probation()
    require_approval: bool = False
    start_at: datetime | None = None
    seed: str = ""

    @property
    def settle_s(self) -> float:
        """How long after its end a block is left alone for late telemetry."""
        return self.lag_s if self.lag_s is not None else min(self.block_s, 30.0)

    def failure_budget(self, wave_size: int) -> int:
        """How many devices of a wave of this size may fail without stopping the rollout."""
        return max(self.max_install_failures, int(self.max_failure_share * wave_size))


def parse_policy(data: Mapping[str, Any]) -> Policy:
    """A policy from JSON values; fields left out take their defaults, margins are merged over the defaults.

    Raises:
        UsageError: `invalid`, naming the field.
    """
    values = dict(data)
    if isinstance(values.get("margins"), Mapping):
        values["margins"] = {**_MARGINS, **values["margins"]}
    try:
        policy = msgspec.convert(values, Policy)
    except msgspec.ValidationError as error:
        raise UsageError("invalid", f"rollout policy: {error}") from error
    problem = _problem(policy)
    if problem:
        raise UsageError("invalid", f"rollout policy: {problem}")
    return policy


def dump_policy(policy: Policy) -> dict[str, Any]:
    """The policy as JSON values; `parse_policy(dump_policy(p)) == p`."""
    values: dict[str, Any] = msgspec.to_builtins(policy)
    return values


def _problem(policy: Policy) -> str:
    reached = 0.0
    for number, wave in enumerate(policy.waves):
        if (wave.count is None) == (wave.percent is None):
            return f"wave {number} needs either a count or a percent"
        if wave.percent is not None and wave.percent <= reached:
            return f"wave {number}: percent is cumulative and must rise"
        reached = wave.percent or reached
    if not policy.waves:
        return "at least one wave"
    if policy.start_at is not None and policy.start_at.tzinfo is None:
        return "start_at has no time zone"
    return ""
