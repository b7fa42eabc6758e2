"""What the agent begins with: its record with a new boot number, and the worker host of each slot."""

from dataclasses import replace

from wavegate_agent.adapters import clock
from wavegate_agent.adapters.workers.host import WorkerHost, WorkerSettings
from wavegate_agent.config import Config
from wavegate_agent.control.ports import Host
from wavegate_agent.core.journal_format import MAX_QUARANTINED, Record

__all__ = ["first_record", "worker_host"]

_SECONDS_A_BOOT = 10


def first_record(known: Record | None, sent_boot: int) -> Record:
    """The journal's record with a boot number above every one used before.

    The server drops messages whose (boot, seq) it has seen. So a device that lost its journal takes a number from the clock:
    one that cannot have been reached by counting starts.

    Args:
        known: what the journal held.
        sent_boot: highest boot number in the outbox.
    """
    if known is not None:
        kept = known.quarantined[-MAX_QUARANTINED:]  # release 0.1 kept two more
        return replace(known, boot=max(known.boot, sent_boot) + 1, quarantined=kept)
    seconds = (clock.now() - Record().time_floor).total_seconds()
    return Record(boot=max(sent_boot, int(max(0.0, seconds) // _SECONDS_A_BOOT)) + 1)


def worker_host(config: Config, name: str) -> Host:
    """The host of a slot's workers, its sockets bound. Raises OSError when they cannot be."""
    settings = WorkerSettings(
        unix_path=config.infer_socket(name),
        tcp_port=config.tcp_port(name),
        intra_threads=config.threads,
        concurrency=config.concurrency,
        memory_limit_mb=config.memory_mb,
        nice_candidate=config.candidate_nice,
    )
    return WorkerHost(name, settings)
