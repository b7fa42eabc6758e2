"""The subprocess that turns a bundle's torch module into a torch program: `python -m wavegate_server.compress.exports.torch_program`.

Job: {"directory", "source": {...}, "feeds": npz, "inputs": [names], "target": pt2 to write} -> {"fence"}
A program holds the graph and the weights and none of the author's Python: only that goes to a foreign converter.
"""

import json
import sys
from pathlib import Path
from typing import Any

from wavegate_server.compress.process import sandbox

__all__ = ["main"]


def main() -> int:
    """Read a job from standard input, print the answer; exit code 0 or 1."""
    job = json.load(sys.stdin)
    fence = sandbox.enter(no_network=True)  # before torch starts threads, and before the author's Python runs

    from wavegate_shared.errors import UsageError

    try:
        _export(job)
        answer = {"fence": str(fence)}
    except UsageError as error:
        answer = {"error": error.code, "detail": error.detail}
    except ImportError as error:
        answer = {"error": "setup", "detail": f"{error}; pip install 'wavegate-server[distil]'"}
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, AssertionError) as error:
        detail = (str(error).strip().splitlines() or ["?"])[0][:300]
        answer = {"error": "bundle_invalid", "detail": f"torch does not export this module: {detail}"}
    print("\n" + json.dumps(answer))
    return 1 if "error" in answer else 0


def _export(job: dict[str, Any]) -> None:
    import msgspec
    import numpy as np
    import torch

    from wavegate_server.compress.torch_module import load
    from wavegate_server.core.bundle_spec import Source

    module = load.load(Path(job["directory"]), msgspec.convert(job["source"], Source))
    with np.load(job["feeds"], allow_pickle=False) as archive:
        arguments = tuple(torch.from_numpy(archive[f"0.{name}"].copy()) for name in job["inputs"])
    with torch.no_grad():
        torch.export.save(torch.export.export(module, arguments), job["target"])


if __name__ == "__main__":
    sys.exit(main())
