"""The machine's picture for the documentation."""

from wavegate_agent.core.machine_diagram import mermaid
from wavegate_shared.states import DeviceState


def test_the_diagram_names_every_state() -> None:
    diagram = mermaid()
    assert diagram.startswith("stateDiagram-v2")
    assert all(f" {state}" in diagram for state in DeviceState)
