"""What the device's figures do to a job's verdicts, and every way a job goes on without a device."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import write_pair_bundle
from wavegate_server.adapters.files.bundles import open_bundle
from wavegate_server.compress.search.device_round import (
    HOST_ONLY,
    DeviceFigures,
    DeviceRow,
    OnDevice,
    Tell,
    on_device,
    read_round,
)
from wavegate_server.compress.search.report import Candidate, pareto
from wavegate_server.compress.search.workbench import Made
from wavegate_server.core.compress.budget import Measured, judge, parse_budget
from wavegate_server.core.compress.paired import Drop
from wavegate_shared.errors import TransferError, UsageError, WavegateError
from wavegate_shared.metrics import Metric

ACCURACY = Metric("accuracy")
BUDGET = parse_budget("size=-50%,drop=2pt,speed=2x", ACCURACY)
BEFORE = {"p50_ms": 40.0, "p95_ms": 50.0, "cpu_ms": 39.0, "peak_mb": 90.0}


def row(
    name: str, path: Path, *, p50: float = 2.0, size: int = 40, drop: float = 0.0, budget: Any = BUDGET
) -> Candidate:
    """A candidate as the host judged it; the original takes 5 ms and 100 bytes there."""
    measured = Measured(
        size, 100, p50, 5.0, p50 * 1.5, 70.0, ACCURACY, 0.95 - drop, 0.95, Drop(drop, drop, drop + 0.01, 500, 9)
    )
    verdicts = judge(budget, measured)
    missed = [verdict.item for verdict in verdicts if not verdict.met]
    return Candidate(
        name, path, measured, p50, 0.99, verdicts, [], offered=not missed, reason=f"misses {missed}" if missed else ""
    )


class Round:
    """A device whose figures the test gives. Attributes: asked, the bundles by name."""

    def __init__(self, rows: Mapping[str, DeviceRow] | WavegateError, problem: str = "") -> None:
        self._rows, self._problem = rows, problem
        self.asked: dict[str, dict[str, Any]] = {}

    def measure(self, original: Path, candidates: Mapping[str, Path], tell: Tell) -> DeviceFigures:
        tell("measuring on kiosk-1", "")
        for name, path in {"original": original, **candidates}.items():
            with open_bundle(path) as bundle:
                self.asked[name] = {"files": sorted(bundle.spec.files), "recipe": bundle.spec.recipe}
        if isinstance(self._rows, WavegateError):
            raise self._rows
        rows = {name: found for name, found in self._rows.items() if name in candidates}
        return DeviceFigures("kiosk-1", "edge-a", rows, "b-1", self._problem)


def there(p50: float, **changes: Any) -> DeviceRow:
    fields = {
        "p50_ms": p50,
        "p95_ms": p50 * 1.2,
        "cpu_ms": p50,
        "peak_mb": 60.0,
        "before": BEFORE,
        "report": {"p50_ms": p50},
    }
    return DeviceRow(**{**fields, **changes})


class Job:
    """A bundle, its original and rows that the host judged."""

    def __init__(self, directory: Path) -> None:
        self.directory = write_pair_bundle(directory / "b")
        model = self.directory / "model.onnx"
        self.path = model
        self.original = Made("original", model, "0" * 64)

    def rows(self, *rows: Candidate) -> OnDevice:
        winner = next((each for each in rows if each.offered), None)
        first = replace(row("original", self.path, p50=5.0, size=100), path=None)
        return OnDevice(list(rows), winner, first)

    def run(self, device: Round, rows: OnDevice, budget: Any = BUDGET) -> OnDevice:
        with open_bundle(self.directory) as bundle:
            return on_device(device, bundle, self.original, rows, budget, lambda *_: None)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def test_the_devices_times_take_the_hosts_place(job: Job) -> None:
    ended = job.run(Round({"int8": there(10.0)}), job.rows(row("int8", job.path)))
    assert ended.winner is not None
    found = ended.winner.measured
    assert found is not None
    assert (found.p50_ms, found.p50_before, found.p95_ms, found.peak_mb) == (10.0, 40.0, 12.0, 60.0)
    assert [verdict.value for verdict in ended.winner.verdicts if verdict.item == "speed=2x"] == [4.0]
    assert (ended.place, ended.winner.measured_on) == ("kiosk-1, class edge-a",) * 2
    assert ended.original.measured is not None
    assert ended.original.measured.p50_ms == 40.0
    where = {each.name: (each.where, each.before, each.after) for each in ended.comparison or []}
    assert where["latency p50"] == ("kiosk-1, class edge-a", 40.0, 10.0)
    assert where["peak memory"] == ("kiosk-1, class edge-a", 90.0, 60.0)
    assert where["accuracy"] == ("", 0.95, 0.95)


def test_a_speed_is_what_the_pairs_say_where_that_is_less(job: Job) -> None:
    """Seen on a busy machine: medians of 2.7 and 5.4 ms, and 0.62 as the median of the pairs' ratios."""
    noisy = there(10.0, report={"wall_ratio": 0.625})
    ended = job.run(Round({"int8": noisy}), job.rows(row("int8", job.path)))
    assert [verdict.value for verdict in ended.candidates[0].verdicts if verdict.item == "speed=2x"] == [1.6]
    assert there(10.0, report={"wall_ratio": 0.1}).p50_before == 40.0


def test_a_winner_of_the_host_that_is_slow_there_gives_way(job: Job) -> None:
    """fast on the host, slow there: the trap the round exists for."""
    rows = job.rows(row("fast-here", job.path, p50=1.0), row("steady", job.path, p50=2.4, size=45))
    ended = job.run(Round({"fast-here": there(80.0), "steady": there(18.0)}), rows)
    assert ended.winner is not None
    assert ended.winner.recipe == "steady"
    assert ended.candidates[0].reason == "misses speed=2x on kiosk-1"
    assert any("the host chose fast-here" in note for note in ended.notes)


def test_no_offer_where_none_meets_the_budget_there(job: Job) -> None:
    ended = job.run(Round({"int8": there(30.0)}), job.rows(row("int8", job.path)))
    assert (ended.winner, ended.comparison, ended.place) == (None, [], "kiosk-1, class edge-a")


def test_a_candidate_too_slow_here_may_be_the_answer_there(job: Job) -> None:
    ended = job.run(Round({"int8": there(10.0)}), job.rows(row("int8", job.path, p50=4.0)))
    assert ended.winner is not None
    assert ended.winner.recipe == "int8"


def test_what_loses_too_much_stays_refused_however_fast_it_is(job: Job) -> None:
    ended = job.run(Round({"lossy": there(1.0)}), job.rows(row("lossy", job.path, drop=0.3)))
    assert ended.winner is None
    assert "misses drop=2pt" in ended.candidates[0].reason


def test_limits_in_absolute_terms_are_the_devices(job: Job) -> None:
    budget = parse_budget("p95<=10ms,peak_mem<=65MB", ACCURACY)
    ended = job.run(Round({"int8": there(10.0)}), job.rows(row("int8", job.path, budget=budget)), budget)
    assert [(v.item, v.met, v.value) for v in ended.candidates[0].verdicts] == [
        ("p95<=10ms", False, 12.0),
        ("peak_mem<=65MB", True, 60.0),
    ]


def test_a_candidate_that_fails_its_golden_set_there_is_not_offered(job: Job) -> None:
    rows = job.rows(row("bad", job.path, p50=1.0), row("good", job.path))
    ended = job.run(Round({"bad": there(0.0, problem="golden_failed 0.2 on 64 samples"), "good": there(10.0)}), rows)
    assert ended.winner is not None
    assert (ended.winner.recipe, ended.candidates[0].offered) == ("good", False)
    assert ended.candidates[0].reason == "on kiosk-1: golden_failed 0.2 on 64 samples"


@pytest.mark.parametrize(
    ("device", "said"),
    [
        (
            Round(UsageError("conflict", "no device: wavegate device token ID --bench")),
            "wavegate device token ID --bench",
        ),
        (Round(TransferError("not_connected", "cannot reach the server")), "cannot reach the server"),
        (Round({}, "kiosk-1 did not report on int8 within 300 s"), "did not report on int8"),
        (Round({"int8": there(0.0, problem="timed_out")}), "int8: timed_out"),
    ],
    ids=["none", "server away", "device away", "timeout"],
)
def test_without_figures_the_hosts_verdict_stands_and_says_why(job: Job, device: Round, said: str) -> None:
    rows = job.rows(row("int8", job.path))
    ended = job.run(device, rows)
    assert (ended.place, ended.winner, ended.candidates) == (HOST_ONLY, rows.winner, rows.candidates)
    assert ended.notes[0].startswith("host only: ")
    assert said in ended.notes[0]


def test_three_to_six_of_the_best_go_to_the_device(job: Job) -> None:
    many = [row(f"c{n}", job.path, p50=1.0 + n / 10, size=40 - n) for n in range(9)]
    device = Round({})
    job.run(device, job.rows(*many))
    assert sorted(device.asked) == ["c0", "c1", "c2", "c3", "c4", "c5", "original"]
    few = Round({})
    job.run(few, job.rows(row("good", job.path), *(row(f"bad{n}", job.path, p50=9.0, size=90 + n) for n in range(4))))
    assert len(few.asked) == 1 + 3
    assert "good" in few.asked


def test_samples_stay_on_the_server(job: Job) -> None:
    device = Round({})
    job.run(device, job.rows(row("int8", job.path)))
    assert device.asked["int8"] == {"files": ["golden.npz", "model.onnx", "vocab.txt"], "recipe": "int8"}
    assert device.asked["original"]["recipe"] == "original"


def test_rows_of_both_machines_are_compared_by_their_shares(job: Job) -> None:
    slow_clock = row("there", job.path, p50=2.0)
    assert slow_clock.measured is not None
    slow_clock = replace(slow_clock, measured=replace(slow_clock.measured, p50_ms=8.0, p50_before=40.0))
    assert pareto([slow_clock, row("here", job.path, p50=2.0)]) == {"there"}


def test_a_round_as_the_api_tells_it() -> None:
    bench = {"p50_ms": 2.0, "p95_ms": 3.0, "cpu_ms": 1.9, "peak_mb": None, "beside": {"p50_ms": 4.0, "cpu_ms": 3.9}}
    view = {
        "id": "b-1", "device": "kiosk-1", "class": "edge-a", "state": "done", "reason": "measured 1 of 2",
        "candidates": [
            {"name": "a", "state": "benched", "code": None, "detail": "", "bench": bench, "golden": {"passed": True}},
            {"name": "b", "state": "failed", "code": "golden_failed", "detail": "0.2", "bench": None, "golden": None},
        ],
    }  # fmt: skip
    figures = read_round(view)
    assert (figures.place, figures.problem) == ("kiosk-1, class edge-a", "")
    assert (figures.rows["a"].p50_ms, figures.rows["a"].p50_before, figures.rows["a"].peak_mb) == (2.0, 4.0, None)
    assert (figures.rows["b"].problem, figures.rows["b"].golden_passed) == ("golden_failed 0.2", False)
    assert figures.as_json()["candidates"]["a"]["p95_ms"] == 3.0
    assert read_round({**view, "state": "failed"}).problem == "measured 1 of 2"
