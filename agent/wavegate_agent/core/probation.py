"""Whether a freshly swapped version has proved itself on live requests.

The rule comes with the assignment: at least so long and so many requests, at most this share of errors, and a p99 at most
this many times the device's own p99 before the swap. Both limits are judged so that chance alone almost never fails a good
version: a p99 from 50 requests is one request. So a limit is broken when the count above it is one that a version exactly
at the limit would show with a probability below `DOUBT`.

Where live requests do not come, the agent's own requests (golden samples through the public socket) take the place of the ones
that are missing. They never outvote live ones: a live share of errors that is above the limit with three errors or more waits
for live requests.

Source: exact one-sided binomial test; DOUBT is per look, and looks come about once a second only while requests come.
"""

import math
from dataclasses import dataclass, field
from enum import StrEnum

from wavegate_agent.core.live_stats import LiveStats
from wavegate_shared.assignment import Probation
from wavegate_shared.histogram import Histogram

__all__ = [
    "DOUBT",
    "MIN_BASELINE",
    "OwnAnswer",
    "OwnCounts",
    "Verdict",
    "Word",
    "judge",
    "judge_with_own",
    "may_ask_itself",
]

DOUBT = 1e-4
MIN_BASELINE = 50
"""Requests of the version before, below which its p99 is no yardstick."""
_ACCIDENTS = 3
"""One or two of anything is an accident; that many are not."""


class Word(StrEnum):
    """What probation says."""

    WAIT = "wait"
    PASS = "pass"  # noqa: S105
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome and the reason for people."""

    word: Word
    reason: str


def judge(
    rule: Probation, seconds: float, requests: int, errors: int, latency: Histogram, before: Histogram
) -> Verdict:
    """The word on a version after `seconds` of live service.

    Args:
        rule: from the assignment.
        seconds: time since the swap.
        requests: answered by the new version since the swap.
        errors: how many of them failed.
        latency: of these requests, ms.
        before: latencies of the version in charge before the swap; may be empty.
    """
    if _too_many(errors, requests, rule.max_error_share):
        return Verdict(Word.FAIL, f"{errors} errors in {requests} requests, allowed is {rule.max_error_share:.1%}")
    slow = _too_slow(rule, latency, before)
    if slow:
        return Verdict(Word.FAIL, slow)
    if seconds < rule.seconds or requests < rule.requests:
        return Verdict(Word.WAIT, f"{requests} of {rule.requests} requests in {seconds:.0f} of {rule.seconds:.0f} s")
    if requests and errors / requests > rule.max_error_share:
        return Verdict(Word.WAIT, f"{errors} errors in {requests} requests: above the limit, too few to be sure")
    return Verdict(Word.PASS, f"{requests} requests, {errors} errors in {seconds:.0f} s")


@dataclass(frozen=True, slots=True)
class OwnAnswer:
    """How one of the agent's own requests ended. `latency_ms` as the worker counts it; None when no answer came."""

    failed: bool
    latency_ms: float | None = None


@dataclass(slots=True)
class OwnCounts:
    """The agent's own requests to the version on probation."""

    requests: int = 0
    errors: int = 0
    latency: Histogram = field(default_factory=Histogram)

    def count(self, answer: OwnAnswer) -> None:
        """Count one request."""
        self.requests += 1
        self.errors += answer.failed
        if answer.latency_ms is not None:
            self.latency.add(answer.latency_ms)


def may_ask_itself(rule: Probation, seconds: float) -> bool:
    """Whether live requests have been waited for long enough."""
    return rule.idle_after is not None and seconds >= rule.idle_after


def judge_with_own(rule: Probation, seconds: float, live: LiveStats, own: OwnCounts, before: Histogram) -> Verdict:
    """The word on a version whose missing live requests the agent's own ones replace.

    Live requests are judged first and by themselves. Own ones can fail a version by the same limits, the p99 only against a
    yardstick of live requests; and they can prove it when both kinds together are enough and good enough.
    """
    verdict = judge(rule, seconds, live.requests, live.errors, live.latency, before)
    if verdict.word is not Word.WAIT or not own.requests:
        return verdict
    alone = judge(rule, seconds, own.requests, own.errors, own.latency, before)
    if alone.word is Word.FAIL:
        return Verdict(Word.FAIL, f"own requests: {alone.reason}")
    outvoted = live.errors >= _ACCIDENTS and live.errors > rule.max_error_share * live.requests
    together = judge(rule, seconds, live.requests + own.requests, live.errors + own.errors, Histogram(), Histogram())
    return verdict if outvoted or together.word is not Word.PASS else together


def _too_slow(rule: Probation, latency: Histogram, before: Histogram) -> str:
    p99 = before.quantile(0.99)
    if p99 is None or before.count < MIN_BASELINE:
        return ""
    limit, n = p99 * rule.max_p99_ratio, latency.count
    above = round((latency.share_above(limit) or 0.0) * n)
    if not _too_many(above, n, 0.01):
        return ""
    return f"{above} of {n} requests slower than {rule.max_p99_ratio:g} x the p99 before ({p99:.1f} ms)"


def _too_many(count: int, total: int, share: float) -> bool:
    """Whether `count` of `total` is out of reach of a true share at the limit."""
    if total == 0 or count <= share * total:
        return False
    if count < _ACCIDENTS:  # whatever the share
        return False
    return _binomial_tail(count, total, max(share, 1e-9)) < DOUBT


def _binomial_tail(count: int, total: int, share: float) -> float:
    """P(X >= count) for X ~ Binomial(total, share)."""
    if share >= 1.0:
        return 1.0
    log_p, log_q = math.log(share), math.log1p(-share)
    tail = 0.0
    for k in range(count, total + 1):
        log_choose = math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1)
        term = math.exp(log_choose + k * log_p + (total - k) * log_q)
        tail += term
        if term < tail * 1e-12:
            break
    return tail
