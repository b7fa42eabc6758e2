"""Compression of real models: size, speed, loss and time of each result, and how many results were not as stated.

Large models are made once by their builders (`_compress_models`), three small ones nobody tuned the search on by
`_compress_small`; the bundles of `deploy/models` and three nets of the test suite come as they are. Every job starts from an
empty cache. `<model>.ptq.*` is without training data, `<model>.distil.*` with it, `<model>.direct.*` what ONNX Runtime's
quantiser gives with its defaults, for comparison. Every shipped file is then loaded by `_compress_scorer`, a process that shares
no code with the search, and scored on samples that no job has seen: `silent_failures` counts results that are not as stated,
and `slower_than_stated` those of them of which only the speed is not.
`<model>.<way>.met` is 0 where no candidate met the budget; the figures are then of the closest one, which was not shipped.
`large.*` is the memory that an 800 MB model takes. `--models address,lstm,large` runs some; figures so far are kept in
deploy/models/.cache/bench/last.json.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from math import hypot
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench import _compress_large, _compress_models
from tests.bench._compress_models import CACHE, MODELS, ROOT, Model
from tests.bench._compress_scorer import Unseen, score_in_process
from tests.support.graphs import conv_net, regression_net, sensor_samples, stripes, write_bundle_of, write_conv_bundle
from wavegate_server.adapters.files.bundles import Bundle, open_bundle, write_bundle
from wavegate_server.adapters.files.onnx_files import prepare
from wavegate_server.compress.job import JobResult, Options, run_job
from wavegate_server.compress.search.report import write_result
from wavegate_server.core.compress.budget import parse_budget
from wavegate_shared.errors import UsageError

PTQ_S, DISTIL_S = 300.0, 1200.0
SMALL = Model("small", "_compress_small", (), "", 0.0)
UNTUNED = {"lstm": "size=-40%,drop=4pt", "depthwise": "size=-50%,drop=3pt", "finder": "size=-50%,drop=6pt"}
SHIPPED = {
    "address_student": ("address-match", "size=-70%,drop=3pt,speed=1.2x", 0.03),
    "address_zh": ("address-match-zh", "size=-60%,drop=3pt", 0.03),
    "inversion": ("signal-inversion", "size=-50%,error=+10%", 0.10),
}
SUITE = ("stripes", "stripes_wild", "sensor")
NAMES = (*(model.name for model in MODELS), *UNTUNED, *SHIPPED, *SUITE, "large")
TUNED_ON = ("address", "resnet18", "efficientnet_lite0", "address_student", *SUITE)


@dataclass(frozen=True)
class Case:
    """One job. `limit`: loss its budget allows, in the metric's unit, or as a share of the error where less is better."""

    name: str
    bundle: Path
    unseen: Path
    budget: str
    limit: float
    way: str = "ptq"
    time_s: float = PTQ_S
    direct: bool = False


@dataclass
class Tally:
    """What came out so far."""

    figures: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=lambda: {"threads": 1})
    scored: set[str] = field(default_factory=set)
    failures: int = 0
    slower: int = 0


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run the chosen cases; figures by `<model>.<way>.<key>`."""
    wanted = ("stripes",) if options.quick else tuple(options.models.split(",")) if options.models else NAMES
    unknown = sorted(set(wanted) - set(NAMES))
    if unknown:
        raise SystemExit(f"no such models: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="wavegate-bench-") as scratch:
        for case in _cases(Path(scratch), wanted, tally):
            _one(case, Path(scratch), tally)
            if not options.quick:
                _keep(tally)
        if "large" in wanted:
            tally.figures |= _compress_large.figures(Path(scratch) / "large", say)
    tally.figures["models"] = len(tally.scored)
    tally.figures["models_not_tuned_on"] = len(tally.scored - set(TUNED_ON))
    tally.figures["silent_failures"] = tally.failures
    tally.figures["slower_than_stated"] = tally.slower
    if not options.quick:
        _keep(tally)
    return {**tally.figures, "notes": tally.notes}


def say(text: str) -> None:
    """Progress, with the time of day: on a noisy machine that tells what ran beside."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def _keep(tally: Tally) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"figures": tally.figures, "notes": tally.notes}, indent=1)
    (CACHE / "last.json").write_text(text, encoding="utf-8")


def _one(case: Case, scratch: Path, tally: Tally) -> None:
    name = f"{case.name}.{case.way}"
    say(f"{name}: {case.budget}")
    stages: list[str] = []

    def progress(event: Any) -> None:
        if str(event) not in stages[-1:]:
            stages.append(str(event))
            say(f"  {event}")

    out, cache, original = scratch / f"{name}-out", scratch / f"{name}-cache", scratch / f"{case.name}-original.onnx"
    settings = Options(time_s=case.time_s, cache=cache, structural=case.way == "distil")
    try:
        with open_bundle(case.bundle) as bundle:
            items = parse_budget(case.budget, bundle.spec.metric)
            down = bundle.spec.metric.direction == "down"
            result = run_job(bundle, items, out, progress, settings)
            prepare(bundle.model_path, original, stored=bundle.spec.stored)
            met, result = _shown(bundle, result, out)
    except UsageError as error:
        tally.notes[name] = f"the job failed: {error.detail}"
        say(f"  failed: {error.detail}")
        return
    tally.notes[name] = _note(result)
    tally.figures[f"{name}.seconds"] = round(result.seconds, 1)
    if case.direct:
        _direct(case, original, scratch, tally)
    tally.figures[f"{name}.met"] = int(met)
    if not met:
        say(f"  budget not met: {'; '.join(result.judged.words)}")
    if result.chosen is None or result.chosen.path is None:
        shutil.rmtree(cache, ignore_errors=True)
        return
    unseen = score_in_process(original, case.bundle, out, case.unseen)
    shutil.rmtree(cache, ignore_errors=True)
    tally.figures |= _figures(name, unseen, down=down)
    tally.notes[f"{name}.unseen"] = asdict(unseen)
    wrong = ""
    if met:  # only what was shipped promises anything
        tally.scored.add(case.name)
        slower = _slower(result, unseen)
        tally.slower += bool(slower)
        wrong = _wrong(case, result, unseen, down=down) or slower
    if wrong:
        tally.notes[f"{name}.silent_failure"] = wrong
    tally.failures += bool(wrong)
    say(f"  {result.chosen.recipe}: {tally.figures[f'{name}.size_ratio']:.3f} of the size, {unseen.speed:.2f}x, loss"
        f" {unseen.drop:.4f} on {unseen.samples} unseen, {result.seconds:.0f} s{'; NOT AS STATED: ' + wrong if wrong else ''}")  # fmt: skip


def _shown(bundle: Bundle, result: JobResult, out: Path) -> tuple[bool, JobResult]:
    """Whether the budget was met; and the result with what was shipped, or with what came closest, for the figures."""
    if result.chosen is not None or result.judged.path is None:
        return result.chosen is not None, result
    closest = replace(result, chosen=result.judged, comparison=[])
    write_result(bundle, closest, out)
    return False, closest


def _figures(name: str, unseen: Unseen, *, down: bool) -> dict[str, float]:
    """All by the scorer. `drop_pt`: points; where less is better: percent more error."""
    drop = unseen.drop / max(unseen.before, 1e-12) if down else unseen.drop
    return {
        f"{name}.size_ratio": round(unseen.size_ratio, 4),
        f"{name}.speed_ratio": round(unseen.speed, 3),
        f"{name}.drop_pt": round(drop * 100, 3),
        f"{name}.agreement": round(unseen.agreement, 4),
    }


def _wrong(case: Case, result: JobResult, unseen: Unseen, *, down: bool) -> str:
    """Why the result is not as stated, or nothing.

    Its loss must be within the budget as the scorer sees it, and no further from the stated one than both intervals explain.
    """
    stated = result.chosen.measured if result.chosen else None
    assert stated is not None
    limit = case.limit * unseen.before if down else case.limit
    if not unseen.finite:
        return "an output is not finite"
    if unseen.drop > limit:
        return f"loses {unseen.drop:.4f} on unseen samples, the budget allowed {limit:.4f}"
    room = hypot(stated.drop.high - stated.drop.value, unseen.slack)
    if unseen.drop > stated.drop.value + room:
        return f"loses {unseen.drop:.4f} on unseen samples, stated were {stated.drop.value:.4f} and {room:.4f} of room"
    if abs(unseen.size_ratio - stated.size_bytes / stated.size_before) > 0.001:
        return "its size is not the stated one"
    return ""


def _slower(result: JobResult, unseen: Unseen) -> str:
    """Why the stated speed is not true, or nothing."""
    stated = result.chosen.measured if result.chosen else None
    assert stated is not None
    claimed = stated.p50_before / stated.p50_ms
    return f"stated {claimed:.2f}x, is {unseen.speed:.2f}x" if claimed > 1.05 and unseen.speed < 1 else ""


def _note(result: JobResult) -> dict[str, Any]:
    rows = {}
    for candidate in result.candidates:
        m = candidate.measured
        rows[candidate.recipe] = {"reason": candidate.reason} | (
            {}
            if m is None
            else {
                "size": round(m.size_bytes / m.size_before, 4),
                "speed": round(m.p50_before / m.p50_ms, 3),
                "metric": round(m.value, 4),
                "drop_pt": round(m.drop.value * 100, 3),
                "drop_high_pt": round(m.drop.high * 100, 3),
                "agreement": round(candidate.agreement, 4),
            }
        )
    chosen = result.chosen.recipe if result.chosen else None
    return {"chosen": chosen, "words": result.judged.words, "candidates": rows, "notes": result.notes}


_DIRECT = """
import sys
from onnxruntime.quantization import quantize_dynamic
quantize_dynamic(sys.argv[1], sys.argv[2])
"""


def _direct(case: Case, original: Path, scratch: Path, tally: Tally) -> None:
    """What one call with defaults gives: the comparison for "searched"."""
    folder = scratch / f"{case.name}-direct"
    shutil.copytree(case.bundle, folder)
    target = next(folder.glob("*.onnx"))
    command = [sys.executable, "-c", _DIRECT, str(original), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        tally.notes[f"{case.name}.direct"] = done.stderr.strip()[-300:]
        return
    unseen = score_in_process(original, case.bundle, folder, case.unseen)
    tally.figures |= _figures(f"{case.name}.direct", unseen, down=False)
    say(f"  direct: {unseen.size_ratio:.3f} of the size, {unseen.speed:.2f}x, loss {unseen.drop:.4f}")


# --- cases ---------------------------------------------------------------------------------------------------------------
def _cases(scratch: Path, wanted: tuple[str, ...], tally: Tally) -> Iterator[Case]:
    yield from _suite(scratch, wanted)
    for name, (folder, budget, limit) in SHIPPED.items():
        place = ROOT / "deploy" / "models" / folder / "bundle"
        if name in wanted and (place / "bundle.yaml").is_file():
            yield Case(name, *_halved(place, scratch / name), budget, limit, direct=True)
    if set(wanted) & set(UNTUNED):
        small = _prepared(SMALL, tally)
        for name, budget in UNTUNED.items():
            if small and name in wanted:
                limit = float(budget.rpartition("drop=")[2].removesuffix("pt")) / 100
                yield Case(name, small / name / "bundle", small / name / "unseen.npz", budget, limit, direct=True)
    for model in MODELS:
        made = _prepared(model, tally) if model.name in wanted else None
        if made:
            place, unseen = made / "bundle", made / "unseen.npz"
            yield Case(model.name, place, unseen, model.ptq, model.limit, direct=True)
            if model.distil:
                yield Case(model.name, place, unseen, model.distil, model.distil_limit, "distil", DISTIL_S)


def _prepared(model: Model, tally: Tally) -> Path | None:
    try:
        return _compress_models.prepare(model, say)
    except (RuntimeError, OSError) as error:
        tally.notes[model.name] = f"its original could not be made: {error}"
        say(f"{model.name}: {error}")
        return None


def _halved(place: Path, folder: Path) -> tuple[Path, Path]:
    """A copy of a shipped bundle that judges on every second sample of its eval set; the other half stays unseen."""
    with open_bundle(place) as bundle:
        file = (bundle.spec.eval or bundle.spec.golden).file
        shutil.copytree(place, folder / "bundle")
        with np.load(bundle.path(file), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    for target, first in ((folder / "bundle" / file, 0), (folder / "unseen.npz", 1)):
        kept = {name: array[first::2] for name, array in arrays.items() if first == 0 or name != "reference"}
        np.savez(target, allow_pickle=False, **kept)
    import yaml

    document = yaml.safe_load((place / "bundle.yaml").read_text(encoding="utf-8"))
    names = list(document.pop("files"))
    write_bundle(folder / "bundle", document, {name: folder / "bundle" / name for name in names})
    return folder / "bundle", folder / "unseen.npz"


def _suite(scratch: Path, wanted: tuple[str, ...]) -> Iterator[Case]:
    """Nets of the test suite, made in milliseconds."""
    images, labels = stripes(1000, 77)
    np.savez(scratch / "stripes.npz", allow_pickle=False, **{"input.image": images, "label": labels})
    x, y = sensor_samples(1000, 78)
    np.savez(scratch / "sensor.npz", allow_pickle=False, **{"input.x": x, "label": y})
    if "stripes" in wanted:
        plain = write_conv_bundle(scratch / "stripes", golden=600)
        yield Case("stripes", plain, scratch / "stripes.npz", "size=-50%,drop=2pt", 0.02)
    if "stripes_wild" in wanted:
        wild = write_conv_bundle(scratch / "wild", model=conv_net(wild=True), golden=600)
        yield Case("stripes_wild", wild, scratch / "stripes.npz", "size=-50%,drop=2pt", 0.02)
    if "sensor" in wanted:
        calib = sensor_samples(64, 3)[0]
        sensor = write_bundle_of(scratch / "sensor", regression_net(), *sensor_samples(600, 2), calib)
        yield Case("sensor", sensor, scratch / "sensor.npz", "size=-40%,error=+20%", 0.20)
