import pytest

from wavegate_server.core.identity_runs import Run, note_run

FACTS = {"host": "gw-1", "machine": "aarch64", "memory_total_mb": 1024, "kernel": "6.1", "disk_free_mb": 3}


def clones(order: str) -> list[bool]:
    """For hellos of runs named by letters, which of them show a clone."""
    runs: list[Run] = []
    found = []
    for number in order.replace(" ", ""):
        turn = note_run(runs, number, {"host": f"host-{number}"})
        runs = turn.runs
        found.append(turn.other is not None)
    return found


@pytest.mark.parametrize(
    "order",
    ["a", "aaaa", "ab", "aabbccdd", "abcdefghijklmnop"],
    ids=["one run", "reconnects", "a restart", "restarts and reconnects", "a crash loop"],
)
def test_a_device_that_starts_again_is_no_clone(order: str) -> None:
    assert not any(clones(order))


@pytest.mark.parametrize(
    "order", ["aba", "abcb", "abcdea"], ids=["two take turns", "after a restart", "a restarts often"]
)
def test_a_run_that_comes_back_after_another_is_a_clone(order: str) -> None:
    found = clones(order)
    assert found[-1]
    assert not any(found[:-1])


def test_both_machines_are_named_by_what_tells_them_apart() -> None:
    first = note_run([], "a", FACTS)
    second = note_run(first.runs, "b", {"host": "bench"})
    third = note_run(second.runs, "a", FACTS)
    assert str(third.runs[-1]) == "gw-1 (aarch64, 1024 MB, 6.1, run a)"
    assert third.other == Run("b", {"host": "bench"})
    assert "disk_free_mb" not in third.runs[-1].facts


def test_an_agent_that_names_no_run_changes_nothing() -> None:
    runs = [Run("a")]
    assert note_run(runs, "", FACTS).runs == runs
    assert note_run(runs, "", FACTS).other is None


def test_few_runs_are_kept() -> None:
    runs: list[Run] = []
    for number in range(100):
        runs = note_run(runs, str(number), FACTS).runs
    assert len(runs) == 8
