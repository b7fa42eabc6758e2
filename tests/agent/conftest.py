"""A server side in memory, and a device that has proved a version."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent_world import AgentWorld, RunningAgent
from wavegate_shared.states import Outcome


@pytest.fixture
def world() -> AgentWorld:
    made = AgentWorld()
    for version in (1, 2, 3, 4):
        made.release(version)
    return made


@pytest.fixture
def running(tmp_path: Path, world: AgentWorld) -> Iterator[RunningAgent]:
    """A device that has proved version 1."""
    with RunningAgent(tmp_path, world) as agent:
        assert agent.install(1).outcome is Outcome.PROVEN
        yield agent
