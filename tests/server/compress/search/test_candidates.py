"""Which candidate is repaired, what is left float first, and in which order candidates are judged."""

from pathlib import Path

from wavegate_server.compress.onnx_graph.sensitivity_scan import worth
from wavegate_server.compress.search.candidates import Trial, to_keep, to_repair
from wavegate_server.compress.search.verdicts import judging_order
from wavegate_server.compress.search.workbench import Made

COSTS = {"tensor": 0.80, "channel": 0.85, "entropy": 0.86, "float": 1.5}


def trial(name: str, drop: float, recipe: str = "int8-static-per-channel") -> Trial:
    return Trial(name, recipe, made=Made(name, Path(name), ""), drop=drop)


def cost(of: Trial) -> float:
    return COSTS[of.name]


def repaired(*trials: Trial, goal: float = 0.01) -> str | None:
    found = to_repair(trials, goal, cost=cost, fits=lambda _: True)
    return found.name if found else None


def test_of_candidates_as_cheap_the_least_lossy_is_repaired() -> None:
    assert repaired(trial("tensor", 0.20), trial("channel", 0.03), trial("entropy", 0.04)) == "channel"


def test_a_cheaper_one_is_repaired_before_a_dear_one_that_is_better() -> None:
    assert repaired(trial("tensor", 0.20), trial("float", 0.02)) == "tensor"


def test_nothing_is_repaired_for_what_a_good_candidate_already_gives() -> None:
    assert repaired(trial("tensor", 0.20), trial("channel", 0.005)) is None
    assert repaired(trial("tensor", 0.20), trial("float", 0.005)) == "tensor"


def test_weights_only_and_failed_candidates_are_not_repaired() -> None:
    failed = trial("channel", 0.03)
    failed.reason = "it crashed"
    assert repaired(trial("tensor", 0.20, "int8-weights"), failed) is None


def test_the_start_of_a_convolutional_net_stays_float_before_scattered_blocks() -> None:
    ranking = [{"nodes": [f"n{at}"], "at": at} for at in (5, 2, 7, 0, 1, 3, 4, 6)]
    kept = {name: [block["at"] for block in blocks] for name, blocks in to_keep(ranking, convolutional=True)}
    assert list(kept) == ["first3", "first4", "keep1", "keep2", "keep3", "keep5", "keep8"]
    assert sorted(kept["first3"]) == [0, 1, 2]
    assert kept["keep3"] == [5, 2, 7]
    assert "first3" not in dict(to_keep(ranking, convolutional=False))
    assert "first4" not in dict(to_keep(ranking[:7], convolutional=True))  # more than half of the net is no start


def test_a_block_is_weighed_by_the_error_it_takes_away_and_by_its_bytes() -> None:
    small, large = {"error": 0.056, "share": 0.01}, {"error": 0.052, "share": 0.33}
    assert worth(small, 0.06) < worth(large, 0.06)
    assert worth({"error": 0.050, "share": 0.01}, 0.06) < worth(small, 0.06)
    assert worth(large, float("inf")) < worth(small, float("inf"))  # nothing to compare with: the error alone


def test_what_kept_to_the_goal_is_judged_before_what_is_cheaper() -> None:
    trials = [(trial("tensor", 0.015), True), (trial("channel", 0.03), True), (trial("entropy", 0.008), True)]
    slow = (trial("float", 0.0), False)
    order = judging_order([*trials, slow], allowed=0.02, goal=0.01, cost=cost)
    assert [each.name for each, _ in order] == ["entropy", "tensor", "channel", "float"]
