"""What a worker counts about its live requests, by the version that answered.

Not here: telemetry windows (the runner turns these into `wire.Window`), percentiles (the histogram has them). A count
belongs to the version that answered the request, also when a label for it arrives after the next version took over.
"""

import math
from dataclasses import dataclass, field

from wavegate_shared.histogram import Histogram

__all__ = ["LiveStats"]


@dataclass(slots=True)
class LiveStats:
    """Counts of one version since the last collection; `merge` adds, so no order of collections loses any.

    Attributes:
        version: the version that answered.
        model: its model name.
        requests: inference requests that reached the model. A request refused as malformed is the client's mistake and
            counts nowhere, so that a broken client cannot roll a version back.
        errors: of these, the ones answered with a 5xx, and labels for outputs that were not finite.
        latency: from request fully read to response written.
        score_sum: sum of the metric's scores over labelled samples.
        score_count: how many samples were labelled.
        cpu_ms: CPU time of the worker's process.
        rss_mb: resident memory at the last collection in MiB, None where it cannot be read.
        anon_mb: anonymous memory, the part that cannot be dropped.
    """

    version: int
    model: str = ""
    requests: int = 0
    errors: int = 0
    latency: Histogram = field(default_factory=Histogram)
    score_sum: float = 0.0
    score_count: int = 0
    cpu_ms: float = 0.0
    rss_mb: float | None = None
    anon_mb: float | None = None

    def count(self, latency_ms: float, *, failed: bool) -> None:
        """Count one answered request."""
        self.requests += 1
        self.errors += failed
        self.latency.add(latency_ms)

    def add_score(self, score: float) -> None:
        """Count the score of one labelled sample; an infinite one counts as an error, for it would drown all others."""
        if math.isfinite(score):
            self.score_sum += score
            self.score_count += 1
        else:
            self.errors += 1

    def merge(self, other: "LiveStats") -> None:
        """Add a later collection of the same version; memory is taken from the later one where it has a figure."""
        self.requests += other.requests
        self.errors += other.errors
        self.latency.merge(other.latency)
        self.score_sum += other.score_sum
        self.score_count += other.score_count
        self.cpu_ms += other.cpu_ms
        self.model = other.model or self.model
        self.rss_mb = self.rss_mb if other.rss_mb is None else other.rss_mb
        self.anon_mb = self.anon_mb if other.anon_mb is None else other.anon_mb
