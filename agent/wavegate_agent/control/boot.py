"""What the agent begins with: its record with a new boot number, and the worker host of each model."""

from dataclasses import replace
from pathlib import Path

from wavegate_agent.adapters import clock
from wavegate_agent.adapters.workers.host import WorkerHost, WorkerSettings
from wavegate_agent.adapters.workers.listening import DeviceSockets, ListeningSockets
from wavegate_agent.config import Config
from wavegate_agent.control.ports import Host
from wavegate_agent.core.journal_format import Record, by_model, model_of

__all__ = ["WorkerHosts", "figures_path", "first_record", "rename_figures"]

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
        return replace(by_model(known), boot=max(known.boot, sent_boot) + 1)
    seconds = (clock.now() - Record().time_floor).total_seconds()
    return Record(boot=max(sent_boot, int(max(0.0, seconds) // _SECONDS_A_BOOT)) + 1)


def figures_path(state: Path, model: str) -> Path:
    """Where the figures of a model's assignment lie in the state directory."""
    return state / f"evidence-{model}.json"


def rename_figures(state: Path, known: Record | None) -> None:
    """Release 0.1 named figures files by the position of a slot; now the model names them."""
    for name, slot in (known.slots if known is not None else {}).items():
        model, old = model_of(slot), figures_path(state, name)
        if model not in (None, name) and old.exists():
            old.rename(figures_path(state, model or name))


class WorkerHosts:
    """Makes the worker host of each model; all share the device's sockets. Raises OSError when these cannot be bound."""

    def __init__(self, config: Config) -> None:
        self._settings = WorkerSettings(
            intra_threads=config.threads,
            concurrency=config.concurrency,
            memory_limit_mb=config.memory_mb,
            nice_candidate=config.candidate_nice,
        )
        self._sockets = DeviceSockets(ListeningSockets(config.infer_socket, config.http_port))

    @property
    def tcp_port(self) -> int | None:
        """The local API's port on loopback, None without one."""
        return self._sockets.listening.tcp_port

    def make(self, model: str) -> Host:
        """The host of one more model."""
        return WorkerHost(model, self._settings, self._sockets)

    def close(self) -> None:
        """Close the sockets, after the hosts."""
        self._sockets.close()
