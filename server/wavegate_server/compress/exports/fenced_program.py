"""Runs a worker of another Python environment without a network: `python -m wavegate_server.compress.exports.fenced_program`.

Job: {"command": [program, ...], ...} -> what the command answers to the same job. Converters come with telemetry, and their
environment is not ours to trust: they get files, and nothing else.
"""

import json
import subprocess
import sys

from wavegate_server.compress.process import sandbox

__all__ = ["main"]


def main() -> int:
    """Enter the fence, run the command with the job on its standard input; its exit code is ours."""
    text = sys.stdin.read()
    fence = sandbox.enter(no_network=True)
    sys.stderr.write(f"{fence}\n")
    return subprocess.run(json.loads(text)["command"], input=text, text=True, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
