"""The proof of a version on a device without traffic: the agent's own requests, at a low rate, and the words for people.

How to think of this: probation waits for live requests. From `idle_after` seconds on, each look sends at most one own request
and counts it in the trial, until the trial has its verdict. The next one waits at least a second, and at least nine times as
long as the last one took, so that own requests take a tenth of the device at most. All counts are in memory: after a crash or
power cut the probation begins again, as it does with live requests.

Not here: the verdict (`core/probation.py`), how a request travels (`adapters/workers/own_request.py`).
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta

from wavegate_agent.control.live_traffic import Trial
from wavegate_agent.core.probation import OwnAnswer, Verdict, may_ask_itself
from wavegate_shared.assignment import Probation

__all__ = ["DUTY", "FIRST_S", "PAUSE_S", "REPEAT_S", "IdleProof"]

PAUSE_S = 1.0
DUTY = 0.1
FIRST_S = 10.0
"""What is waited for is said to the server this long after the swap, and again after `REPEAT_S` where the count has changed."""
REPEAT_S = 60.0


class IdleProof:
    """Own requests of one slot.

    Args:
        ask: sends golden sample number n; None when that said nothing.
        now: the time people read.
        monotonic: seconds, for pauses.
    """

    def __init__(
        self,
        ask: Callable[[int], OwnAnswer | None],
        now: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask, self._now, self._monotonic = ask, now, monotonic
        self._trial: Trial | None = None
        self._next = self._said_at = 0.0
        self._sample = 0
        self._said_live = -1
        self._begins = ""
        self._refused = 0
        self.waits_for = ""

    def look(self, trial: Trial, rule: Probation, verdict: Verdict) -> str | None:
        """Ask where it is time; what is waited for, when that has to be said again."""
        if trial is not self._trial:
            self._begin(trial, rule)
        if may_ask_itself(rule, trial.seconds) and self._monotonic() >= self._next:
            self._ask_once(trial)
        self.waits_for = self._words(trial, rule, verdict)
        live, now = trial.counts.requests, self._monotonic()
        if live == self._said_live or now - self._said_at < REPEAT_S:
            return None
        self._said_live, self._said_at = live, now
        return self.waits_for

    def _begin(self, trial: Trial, rule: Probation) -> None:
        self._trial, self._said_live, self._sample, self._next, self._refused = trial, -1, 0, 0.0, 0
        self._said_at = self._monotonic() - REPEAT_S + FIRST_S
        self._begins = ""
        if rule.idle_after is not None:
            wait = timedelta(seconds=max(0.0, rule.idle_after - trial.seconds))
            self._begins = f"{self._now() + wait:%H:%M:%S} UTC"

    def _ask_once(self, trial: Trial) -> None:
        begin = self._monotonic()
        answer = self._ask(self._sample)
        end = self._monotonic()
        self._sample += 1
        self._next = end + max(PAUSE_S - (end - begin), (end - begin) * (1 / DUTY - 1))
        if answer is None:
            self._refused += 1
        else:
            trial.own.count(answer)

    def _words(self, trial: Trial, rule: Probation, verdict: Verdict) -> str:
        live, own = trial.counts.requests, trial.own.requests
        if live >= rule.requests:
            return f"waits: {verdict.reason}"
        words = f"waits for {rule.requests} live requests ({live} so far)"
        if not self._begins:
            return f"{words}; own requests are off"
        words += f"; own requests from {self._begins}"
        words += f" ({own} so far)" if own else ""
        return words + (f", {self._refused} said nothing" if self._refused else "")
