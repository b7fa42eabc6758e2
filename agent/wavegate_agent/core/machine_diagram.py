"""The machine's table as a picture, for the documentation."""

from wavegate_agent.core.machine import TABLE, OnOffer, OnRestart
from wavegate_shared.states import DeviceState

__all__ = ["mermaid"]

S = DeviceState

_SHORT = {S.PREFLIGHT: "already on disk", S.GOLDEN: "rollback", S.BENCH: "only to be measured"}


def mermaid() -> str:
    """The table as a mermaid state diagram, for the docs."""
    lines = ["stateDiagram-v2", "    [*] --> idle"]
    for state, row in TABLE.items():
        if row.offer is OnOffer.TAKE:
            lines.append(f"    {state} --> offered: assignment")
        if row.done is not None:
            lines.append(f"    {state} --> {row.done}: done")
        if row.short is not None:
            lines.append(f"    {state} --> {row.short}: {_SHORT[state]}")
        if row.failed is not None and row.failed is not row.done:
            lines.append(f"    {state} --> {row.failed}: failed")
        if row.restart is OnRestart.RELOAD and state is not S.LOADING:
            lines.append(f"    {state} --> loading: found after a crash")
        if row.offer is OnOffer.REVERT:
            lines.append(f"    {state} --> reverting: newer assignment")
    lines += ["    idle --> fallback: active version lost", "    broken --> fallback: try again"]
    return "\n".join(lines) + "\n"
