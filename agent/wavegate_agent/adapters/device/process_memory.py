"""Memory of a process straight from /proc: resident and anonymous, said apart.

Resident memory counts mapped model files that the kernel can drop; anonymous memory is what a small device runs out of.
"""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Memory", "available_mb", "process_memory"]


@dataclass(frozen=True, slots=True)
class Memory:
    """Sizes in MiB, None where /proc does not tell."""

    rss_mb: float | None = None
    anon_mb: float | None = None
    data_mb: float | None = None
    peak_mb: float | None = None


def process_memory(pid: int | None = None) -> Memory:
    """Memory of a process (None: this one); all None when it is gone."""
    fields = _fields(Path(f"/proc/{pid or 'self'}/status"))
    return Memory(fields.get("VmRSS"), fields.get("RssAnon"), fields.get("VmData"), fields.get("VmHWM"))


def available_mb() -> float | None:
    """What the kernel says can be had without swapping, in MiB."""
    return _fields(Path("/proc/meminfo")).get("MemAvailable")


def _fields(path: Path) -> dict[str, float]:
    try:
        text = path.read_text()
    except OSError:
        return {}
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if rest.endswith(" kB"):
            found[name] = int(rest[:-3]) / 1024
    return found
