"""Compression jobs in tests: a server's queue on a seeded directory, a real but short job, and children that misbehave.

`small_job` is the real child with one recipe; the others speak its protocol, because how a crash or a hang is dealt with does
not depend on what was being computed.
"""

from dataclasses import dataclass, field
from pathlib import Path

from tests.support.api_server import Api
from tests.support.waiting import wait_until
from wavegate_server.adapters import clock
from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.database.tables import CompressJob
from wavegate_server.adapters.store.compress_jobs import create_job, get_job
from wavegate_server.services.compress_runner import CompressRunner

__all__ = ["SMALL", "Queue", "alive"]

SMALL = "tests.support.small_job"


@dataclass
class Queue:
    """The jobs of one server."""

    api: Api
    runners: list[CompressRunner] = field(default_factory=list)

    def runner(self, module: str = SMALL, **more: float) -> CompressRunner:
        context = self.api.context
        runner = CompressRunner(
            context.engine, context.objects, context.settings.compress_dir, now=clock.now, module=module, **more
        )
        self.runners.append(runner)
        return runner

    def add(self, budget: str = "size=-10%,drop=40pt", version: int = 1, time_s: float = 120) -> int:
        with write(self.api.context.engine) as session:
            job = create_job(
                session,
                model="pairs",
                version=version,
                budget=budget,
                device_class="",
                time_s=time_s,
                actor="tester",
                now=clock.now(),
            )
            return job.id or 0

    def job(self, number: int) -> CompressJob:
        with read(self.api.context.engine) as session:
            return get_job(session, number)

    def until_state(self, number: int, *states: str) -> CompressJob:
        wait_until(lambda: self.job(number).state in states, f"job {number} {states}")
        return self.job(number)

    def close(self) -> None:
        for runner in self.runners:
            runner.stop()


def alive(pid: int) -> bool:
    """Whether a process runs; a dead one that was not waited for does not count."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in ("Z", "X")
