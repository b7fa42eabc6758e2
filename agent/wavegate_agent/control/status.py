"""What `wavegate-agent status` says of the agent's parts. Who asks: `adapters/device/status_socket`."""

from wavegate_agent.adapters.device import facts
from wavegate_agent.control.machines import Machines
from wavegate_agent.control.renewal import CertificateRenewal
from wavegate_agent.control.trusted_clock import TrustedClock
from wavegate_shared import __version__

__all__ = ["books", "clocks"]


def clocks(clock: TrustedClock, renewal: CertificateRenewal) -> dict[str, object]:
    """What time it is, and when the certificate ends."""
    return {
        "clock": clock.state,
        "trusted_time": clock.now().isoformat(),
        "certificate_ends": renewal.term.ends.isoformat(),
    }


def books(machines: Machines, outbox: int) -> dict[str, object]:
    """What the journal and the outbox hold, and what the control process needs."""
    record = machines.record
    return {
        "agent_version": __version__,
        "boot": record.boot,
        "assignment_seq": record.last_seq,
        "outbox": outbox,
        "step_failures": machines.failures,
        "agent_rss_mb": facts.agent_rss_mb(),
        "quarantined": list(record.quarantined),
    }
