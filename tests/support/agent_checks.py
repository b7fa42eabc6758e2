"""What several files about a running agent ask of it, and the probations they give it."""

from tests.support.agent_world import RunningAgent
from wavegate_shared.assignment import Probation
from wavegate_shared.states import Outcome

__all__ = ["LONG", "TWENTY", "still_good"]

LONG = Probation(seconds=3600.0, requests=1)
"""Ends by no clock of a test."""
TWENTY = Probation(seconds=0.0, requests=20)
"""Ends with twenty requests."""


def still_good(running: RunningAgent, version: int = 4) -> None:
    """Assert that the device takes a good assignment after whatever happened."""
    assert running.install(version).outcome is Outcome.PROVEN
    assert running.host.live == version
