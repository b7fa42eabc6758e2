"""Run one bench and print its figures: `python -m tests.bench NAME --json`.

A bench is a module of this package with `run(options) -> dict[str, float]`. Exit code 0 when it ran, whatever the figures
are; what to reach stands in docs/benchmarks.md.
"""

import argparse
import importlib
import json
import os
import pkgutil
import platform
import sys
from pathlib import Path
from typing import Any

import tests.bench


def main() -> int:
    """Parse arguments, run, print."""
    names = sorted(info.name for info in pkgutil.iter_modules(tests.bench.__path__) if not info.name.startswith("_"))
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure one of Wavegate's promises.")
    parser.add_argument("name", choices=names)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.add_argument("--quick", action="store_true", help="a short run, to see that the bench works")
    parser.add_argument("--models", default="", help="compress: only these, as address,lstm")
    options = parser.parse_args()
    answer: dict[str, Any] = dict(importlib.import_module(f"tests.bench.{options.name}").run(options))
    notes = answer.pop("notes", {})
    result = {"bench": options.name, "machine": machine(), "figures": answer, "notes": notes}
    print(json.dumps(result) if options.json else "\n".join(f"{key:28} {value}" for key, value in answer.items()))
    return 0


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    load = os.getloadavg()[0]
    return {"cpu": model, "cores": os.cpu_count(), "python": platform.python_version(), "load_at_end": round(load, 2)}


if __name__ == "__main__":
    sys.exit(main())
