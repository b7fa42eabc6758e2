"""Makes the fashion bundle: trains ResNet-18 on Fashion-MNIST, then compresses it as any operator would.

    pip install '.[compress,distil]'
    python deploy/models/fashion/make.py

Stages: `teacher` (the original, 44.7 MB, into the git-ignored cache), `original` (its bundle, also in the cache), `bundle`
(`wavegate compress` with training data; the result and its README are what the repo holds). A finished stage is read from the
cache; `--redo STAGE` does that stage and the later ones again. The data are fetched from Debian's package
`dataset-fashion-mnist` by apt-get where it is not installed. About 45 minutes on two shared cores.

Not here: anything a device or the demo needs. Both use the committed bundle.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import torch
from fashion_recipe import net
from fashion_recipe.bundle import logits_of_graph, write_original
from fashion_recipe.data import load
from fashion_recipe.report import Report, readme
from fashion_recipe.training import Plan, accuracy, fit, logits_of
from torch import nn

from wavegate_server.adapters.files.bundles import open_bundle
from wavegate_server.compress.job import Options, run_job
from wavegate_server.compress.search.report import Event
from wavegate_server.core.compress.budget import parse_budget

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent / ".cache" / "fashion"
STAGES = ("teacher", "original", "bundle")
SEED = 11
# reached 91.93 % on the 10,000 test photos
TEACHER = Plan(steps=1080, batch=128, rate=0.1, seed=SEED)
BUDGET = "size=-93%,speed=5x,drop=1pt"
TIME_S = 2400.0


def main() -> None:
    """Run the stages that are not done."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--redo", choices=STAGES)
    chosen = options.parse_args()
    fresh = STAGES[STAGES.index(chosen.redo) :] if chosen.redo else ()
    original = CACHE / "original"
    if "teacher" in fresh:
        (CACHE / "teacher.pt").unlink(missing_ok=True)
    model = teacher(CACHE)
    if "original" in fresh or not (original / "bundle" / "bundle.yaml").is_file():
        figures = write_original(model, load(CACHE), original)
        sys.stderr.write(f"original: {figures}\n")
    compress(original, HERE / "bundle")


def teacher(cache: Path) -> nn.Module:
    """The trained original, from the cache where it is there."""
    torch.manual_seed(SEED)
    model, path = net.build(), cache / "teacher.pt"
    if path.is_file():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model
    splits = load(cache)
    fit(model, splits.train, TEACHER)
    torch.save(model.state_dict(), path)
    reached = accuracy(logits_of(model, splits.test.images), splits.test.labels)
    sys.stderr.write(f"teacher: {reached:.4f} on {len(splits.test.labels)} test images\n")
    return model


def compress(original: Path, target: Path) -> None:
    """The product's own compression; the result replaces `target`."""
    splits, result_at = load(CACHE), CACHE / "result"
    shutil.rmtree(result_at, ignore_errors=True)
    with open_bundle(original / "bundle") as bundle:
        items = parse_budget(BUDGET, bundle.spec.metric)
        options = Options(time_s=TIME_S, cache=CACHE / "steps")
        result = run_job(
            bundle,
            items,
            result_at,
            _say,
            options,
        )
    if result.chosen is None or result.chosen.path is None:
        raise SystemExit(f"no candidate met {BUDGET}: {result.judged.words}")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(result_at, target)
    pair = {
        name: {
            part: accuracy(logits_of_graph(folder / "model.onnx", split.images), split.labels)
            for part, split in (("test", splits.test), ("eval", splits.eval), ("unseen", splits.unseen))
        }
        for name, folder in (("original", original / "bundle"), ("result", target))
    }
    report = Report.of(result, original / "bundle", target, pair, budget=BUDGET, steps=TEACHER.steps)
    (target / "README.md").write_text(readme(report), encoding="utf-8")


def _say(event: Event) -> None:
    sys.stderr.write(f"{event}\n")


if __name__ == "__main__":
    main()
