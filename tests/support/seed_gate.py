"""Gate decisions for the seeded fleet, made by the real gate from invented evidence."""

import random
from collections.abc import Sequence
from typing import Any

from wavegate_server.core.gate.decision import decide, dump
from wavegate_server.core.gate.evidence import Live, MetricEvidence, Shift, Telemetry, metric_specs
from wavegate_server.core.gate.policy import Policy
from wavegate_server.core.gate.verdict import Failure, GateEvidence, Guards, Rules
from wavegate_shared.metrics import Metric

__all__ = ["bad_decision", "good_decision", "open_decision", "refused_decision"]

_MARGINS = Policy().margins
Decided = tuple[str, str, dict[str, Any]]


def good_decision(devices: Sequence[str]) -> Decided:
    """Promoted: the soak is over and nothing got worse."""
    return _decided(_evidence(5, devices, losses=(-0.0004, 0.0003, 0.0001), blocks=40, soak_over=True))


def open_decision(devices: Sequence[str]) -> Decided:
    """Held: the soak is still on."""
    return _decided(_evidence(5, devices, losses=(0.0011, 0.0008, 0.0002), blocks=3, soak_over=False))


def bad_decision(devices: Sequence[str]) -> Decided:
    """Rolled back: accuracy fell and requests got slow."""
    return _decided(_evidence(4, devices, losses=(0.049, 0.031, 0.0004), blocks=6, soak_over=False))


def refused_decision(devices: Sequence[str]) -> Decided:
    """Rolled back before any swap: the golden set failed."""
    failed = [Failure("locker-hz-01", "golden_failed", "accuracy 0.712 < 0.965")]
    return _decided(_evidence(3, devices, losses=None, blocks=0, soak_over=False, failed=failed))


def _decided(evidence: GateEvidence) -> Decided:
    decision = decide(evidence)
    return decision.verdict.value, decision.sentence, dump(evidence, decision)


def _evidence(
    version: int,
    devices: Sequence[str],
    *,
    losses: tuple[float, float, float] | None,
    blocks: int,
    soak_over: bool,
    failed: list[Failure] | None = None,
) -> GateEvidence:
    telemetry = None
    if losses is not None:
        specs = metric_specs(Metric("accuracy"), _MARGINS)
        before = (0.9793, 0.0100, 0.0007)
        metrics = [
            _metric(spec, devices, *pair, blocks)
            for spec, pair in zip(specs, zip(before, losses, strict=True), strict=True)
        ]
        telemetry = Telemetry(
            updated=len(devices),
            metrics=metrics,
            live=Live(requests=590 * blocks, errors=blocks // 5, p95_ms=21.4, peak_memory_mb=63.0),
        )
    return GateEvidence(
        rollout=f"r{version}-address-match",
        model="address-match",
        version=version,
        wave="canary",
        soak_over=soak_over,
        first_install=False,
        approved_by="",
        rules=Rules(
            alpha=0.01, comparisons=9, min_blocks=4, few_canaries="human", wide_factor=10.0, at_soak_end="promote",
            required_metrics=["p99", "errors"],
        ),
        guards=Guards(size=len(devices), budget=0, failed=failed or [], touched=len(devices), controls=18),
        telemetry=telemetry,
    )  # fmt: skip


def _metric(spec: Any, devices: Sequence[str], before: float, loss: float, blocks: int) -> MetricEvidence:
    chance = random.Random(f"{spec.name}{loss}")
    spread = {"accuracy": 0.004, "p99": 0.0016, "errors": 0.0004}[spec.name]
    sign = -1 if spec.direction == "up" else 1
    return MetricEvidence(
        spec=spec,
        measured=True,
        controls=18,
        baseline=[chance.gauss(0, spread) for _ in range(96)],
        blocks=[chance.gauss(loss, spread) for _ in range(blocks)],
        floor=1e-8,
        shifts=[
            Shift(d, before + chance.gauss(0, spread / 3), before + sign * loss + chance.gauss(0, spread / 3), 420)
            for d in devices
        ],
    )
