"""What each process may import."""

import subprocess
import sys

import pytest

HEAVY = ("numpy", "onnxruntime", "httpx", "onnx", "tuf")


def loaded(code: str) -> list[str]:
    """Heavy modules in a fresh process after `code`."""
    program = f"import sys\n{code}\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.split()


@pytest.mark.parametrize(
    "module", ["wavegate_agent.adapters.workers.host", "wavegate_agent.sdk", "wavegate_agent.worker"]
)
def test_the_control_side_loads_nothing_heavy(module: str) -> None:
    assert loaded(f"import {module}") == []


def test_the_worker_loads_its_runtime_and_nothing_else_heavy() -> None:
    assert loaded("import wavegate_agent.adapters.serving.loop") == ["numpy", "onnxruntime"]


def test_a_candidate_steps_back_before_it_imports_anything_heavy() -> None:
    code = (
        "from wavegate_agent import worker\nfrom wavegate_agent.adapters.device import priority\n"
        "def stop(nice):\n    raise SystemExit(f'{nice} ' + str('numpy' in sys.modules))\n"
        "priority.demote = stop\nworker.main(['0', '19'])"
    )
    done = subprocess.run([sys.executable, "-c", "import sys\n" + code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "19 False"
