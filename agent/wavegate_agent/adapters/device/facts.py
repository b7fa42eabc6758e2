"""What this device is and how it feels, straight from /proc and /sys. A fact without a source is None, never a guess.

No psutil: these reads cost microseconds. Memory is told apart by name: rss (resident), anon (cannot be dropped).
"""

import importlib.util
import os
import platform
from pathlib import Path

from wavegate_agent.core.verify import DEFAULT_DOMAINS, DeviceFacts

__all__ = [
    "Facts",
    "agent_rss_mb",
    "device_facts",
    "frequency_mhz",
    "hello_facts",
    "memory_available_mb",
    "temperature_c",
]

Facts = dict[str, str | int | float | None]

_PAGE = os.sysconf("SC_PAGE_SIZE")
_MIB = 1 << 20
_OPSETS = ((22, 23), (21, 22), (18, 21), (17, 20), (15, 19), (0, 18))
"""(minor version of ONNX Runtime 1.x, highest opset of the default domain). Source: its docs/Versioning.md."""
_PROVIDERS = {
    "onnxruntime": ("CPUExecutionProvider",),
    "onnxruntime_gpu": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
    "onnxruntime_openvino": ("OpenVINOExecutionProvider", "CPUExecutionProvider"),
}


def device_facts(device: str, hardware_class: str, *, bench: bool = False) -> DeviceFacts:
    """What a manifest may ask of this device; the runtime is looked up, not imported."""
    name, version = _runtime()
    return DeviceFacts(
        device=device,
        hardware_class=hardware_class,
        bench=bench,
        runtime=version,
        opset=_opset(version),
        domains=DEFAULT_DOMAINS,
        providers=_PROVIDERS.get(name, ("CPUExecutionProvider",)),
        memory_mb=_meminfo().get("MemTotal", 0),
    )


def hello_facts(directory: Path) -> Facts:
    """Figures and strings for the hello message. `directory` is where versions are stored."""
    memory = _meminfo()
    disk = os.statvfs(directory)
    return {
        "memory_total_mb": memory.get("MemTotal"),
        "memory_available_mb": memory.get("MemAvailable"),
        "cpu_count": os.cpu_count(),
        "cpu_usable": len(os.sched_getaffinity(0)),
        "host": platform.node(),
        "machine": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "runtime": " ".join(_runtime()).strip(),
        "cgroup": cgroup_kind(),
        "disk_free_mb": disk.f_bavail * disk.f_frsize // _MIB,
        "agent_rss_mb": agent_rss_mb(),
        "temperature_c": temperature_c(),
    }


def agent_rss_mb() -> float | None:
    """Resident memory of this process in MiB."""
    fields = _read("/proc/self/statm").split()
    return round(int(fields[1]) * _PAGE / _MIB, 1) if len(fields) > 1 else None


def memory_available_mb() -> int | None:
    """Memory that can be had without swapping, MiB."""
    return _meminfo().get("MemAvailable")


def temperature_c() -> float | None:
    """The hottest thermal zone, or None without a sensor."""
    readings = []
    for zone in sorted(Path("/sys/class/thermal").glob("thermal_zone*/temp")):
        text = _read(str(zone)).strip()
        if text.lstrip("-").isdigit():
            readings.append(int(text) / 1000)
    return max(readings, default=None)


def frequency_mhz() -> float | None:
    """The clock of the fastest core right now, or None where the kernel does not tell."""
    places = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
    readings = [int(text) / 1000 for place in places if (text := _read(str(place)).strip()).isdigit()]
    for line in _read("/proc/cpuinfo").splitlines() if not readings else ():
        name, _, value = line.partition(":")
        if name.strip() == "cpu MHz" and value.strip().replace(".", "", 1).isdigit():
            readings.append(float(value))
    return round(max(readings), 1) if readings else None


def cgroup_kind() -> str:
    """How processes can be limited here: `v2 delegated`, `v2`, `v1` or `none`."""
    root = Path("/sys/fs/cgroup")
    for line in _read("/proc/self/cgroup").splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0" and not controllers and (root / "cgroup.controllers").exists():
            own = root / path.lstrip("/")
            return "v2 delegated" if os.access(own / "cgroup.procs", os.W_OK) and os.geteuid() != 0 else "v2"
    return "v1" if (root / "memory").is_dir() else "none"


def _meminfo() -> dict[str, int]:
    """Lines of /proc/meminfo in MiB."""
    found = {}
    for line in _read("/proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        number = rest.strip().split(" ")[0]
        if number.isdigit():
            found[name] = int(number) // 1024
    return found


def _runtime() -> tuple[str, str]:
    """(distribution, version) of the inference runtime beside this Python, empty strings when there is none."""
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        return "", ""
    for directory in sorted(Path(spec.origin).parent.parent.glob("onnxruntime*-*.dist-info")):
        name, _, version = directory.name.removesuffix(".dist-info").partition("-")
        return name, version
    return "onnxruntime", ""


def _opset(version: str) -> int:
    parts = version.split(".")
    if len(parts) < 2 or not parts[1].isdigit():
        return 0
    minor = int(parts[1]) if parts[0] == "1" else 99
    return next(opset for least, opset in _OPSETS if minor >= least)


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
