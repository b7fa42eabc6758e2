"""The torch module of a bundle: loaded in eval mode, its weights never run, its process without a network."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.distil import needs_distil
from wavegate_server.core.bundle_spec import Source
from wavegate_shared.errors import UsageError

needs_distil()

import safetensors.torch  # noqa: E402
import torch  # noqa: E402

from wavegate_server.compress.torch_module import load  # noqa: E402

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, width), nn.Dropout(0.5), nn.Linear(width, 2))

    def forward(self, x):
        return self.body(x)

def build(width=8):
    return Net(width).train()

def leave():
    raise SystemExit(3)

def nothing():
    return 7
"""


class Bomb:
    """A pickle that leaves a file behind when it is read."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (self.target, "w"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "net.py").write_text(NET, encoding="utf-8")
    net = torch.nn.Module()
    net.body = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2))
    safetensors.torch.save_file(net.state_dict(), str(tmp_path / "source" / "weights.safetensors"))
    torch.save({"state_dict": net.state_dict(), "epoch": 3}, tmp_path / "source" / "weights.pt")
    return tmp_path


def source(factory: str = "build", weights: str = "weights.safetensors", **options: object) -> Source:
    return Source(f"source/net.py:{factory}", f"source/{weights}", options)


@pytest.mark.parametrize("weights", ["weights.safetensors", "weights.pt"])
def test_it_is_in_eval_mode_though_its_factory_forgot(bundle: Path, weights: str) -> None:
    module = load.load(bundle, source(weights=weights))
    assert not any(part.training for part in module.modules())
    saved = torch.load(bundle / "source" / "weights.pt", weights_only=True)["state_dict"]
    assert torch.equal(module.state_dict()["body.0.weight"], saved["body.0.weight"])


@pytest.mark.parametrize("protocol", [2, 4])
def test_weights_that_are_a_program_are_refused_and_not_run(bundle: Path, protocol: int) -> None:
    trace = bundle / "trace"
    torch.save({"body.0.weight": Bomb(trace)}, bundle / "source" / "bad.pt", pickle_protocol=protocol)
    (bundle / "source" / "worse.pt").write_bytes(pickle.dumps(Bomb(trace), protocol))
    for name in ("bad.pt", "worse.pt"):
        with pytest.raises(UsageError, match="would run its code") as caught:
            load.load(bundle, source(weights=name))
        assert caught.value.code == "weights_unsafe"
    assert not trace.exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (source(width=9), "do not fit.*body.0.weight"),
        (source(depth=2), "TypeError.*depth"),
        (source("leave"), "SystemExit: 3"),
        (source("nothing"), "gave a int, not an nn.Module"),
        (source("absent"), "AttributeError"),
        (source(weights="net.py"), "weights"),
        (source(weights="absent.safetensors"), "no weights that can be read"),
        (source(weights="short.safetensors"), "no weights that can be read"),
        (source(weights="list.pt"), "not a state dict"),
    ],
)
def test_what_does_not_fit_is_told(bundle: Path, given: Source, words: str) -> None:
    (bundle / "source" / "short.safetensors").write_bytes((bundle / "source" / "weights.safetensors").read_bytes()[:99])
    torch.save([torch.zeros(2)], bundle / "source" / "list.pt")
    with pytest.raises(UsageError, match=words):
        load.load(bundle, given)


FENCED = """
from wavegate_server.compress.process import sandbox
print(sandbox.enter(memory_bytes=2 << 30).name)
import os, socket
try:
    socket.create_connection(("127.0.0.1", {port}), 2)
except sandbox.NetworkRefusedError:
    print("refused")
try:
    bytearray(3 << 30)
except MemoryError:
    print("short of memory")
{more}
"""


def fenced(port: int, before: str = "", more: str = "") -> list[str]:
    code = before + FENCED.format(port=port, more=more)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split("\n")


def test_a_fenced_process_has_no_network_and_little_memory() -> None:
    said = fenced(9, more="print(os.geteuid())")
    assert said[0] in ("NAMESPACE", "HOOK")
    assert said[1:3] == ["refused", "short of memory"]


def test_the_namespace_holds_without_the_hook() -> None:
    """Code that goes around the hook, as C code would, still finds no way out: the only device is its own loopback."""
    said = fenced(9, more="print(open('/proc/net/dev').read())")
    if said[0] != "NAMESPACE":
        pytest.skip("this kernel gives no network namespace here")
    devices = [line.split(":")[0].strip() for line in said[3:] if ":" in line]
    assert devices == ["lo"]


def test_where_there_is_no_namespace_the_hook_refuses() -> None:
    before = "import ctypes; ctypes.CDLL = lambda *a, **k: object()\n"
    assert fenced(9, before)[:2] == ["HOOK", "refused"]
