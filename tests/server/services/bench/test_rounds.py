"""A bench round from the request to the figures, step by step, and every way it may end early."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.api_server import Api
from tests.support.bench_world import CLASS, DEVICE, BenchWorld, bench_world
from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.database.tables import Device, DeviceSlot
from wavegate_server.adapters.store.artifacts import ArtifactIndex
from wavegate_server.adapters.store.bench_rounds import candidates_of
from wavegate_server.adapters.trust.image_repository import ImageRepository
from wavegate_shared.errors import UsageError
from wavegate_shared.manifest import decode_manifest
from wavegate_shared.states import Outcome


@pytest.fixture
def world(api: Api, tmp_path: Path) -> Iterator[BenchWorld]:
    with bench_world(api, tmp_path / "bundles") as made:
        yield made


def listed(world: BenchWorld) -> list[str]:
    store = world.api.context.tuf_repo.store
    snapshot = store.snapshot().signed.meta
    role = f"bench/{CLASS}"
    return (
        sorted(store.targets(role, snapshot[f"{role}.json"].version).signed.targets)
        if f"{role}.json" in snapshot
        else []
    )


def test_candidates_go_out_one_after_another_and_come_back_measured(world: BenchWorld) -> None:
    before = world.order()
    name = world.queued("small", "tiny")
    world.tick()
    first = world.order()
    slot = first.slots["pairs"]
    assert (slot.target, slot.release_seq, first.seq) == (f"bench/{CLASS}/{name}-1.json", 1_000_001, before.seq + 1)
    assert slot.beside is not None
    assert slot.beside.target == f"bench/{CLASS}/{name}-0.json"
    assert first.meta_min[f"bench/{CLASS}"] >= 1
    assert world.states(name) == ["sent", "waiting"]
    world.report(p50=2.0)
    world.tick()
    assert world.order().slots["pairs"].target.endswith(f"{name}-2.json")
    world.report(p50=3.0)
    world.tick()
    shown = world.show(name)
    assert (shown["state"], shown["device"], shown["reason"]) == ("done", DEVICE, f"measured 2 of 2 on {DEVICE}")
    assert [c["bench"]["p50_ms"] for c in shown["candidates"]] == [2.0, 3.0]
    assert shown["candidates"][0]["bench"]["beside"]["p50_ms"] == 4.0
    assert shown["candidates"][0]["golden"]["value"] == 0.99
    assert all(c["report_id"] for c in shown["candidates"])


def test_the_device_gets_its_own_order_back_and_the_targets_go(world: BenchWorld) -> None:
    before = world.order()
    name = world.queued("small")
    world.tick()
    assert (world.desired(), len(listed(world))) == (("r-1", "pairs", 1), 2)
    world.report()
    world.tick(2)
    after = world.order()
    anew = msgspec.structs.replace(before.slots["pairs"], seq=after.seq)
    assert (after.slots, after.rollout, after.seq) == ({"pairs": anew}, before.rollout, before.seq + 2)
    assert world.desired() == ("r-1", "pairs", 1)
    assert listed(world) == []
    world.tick(2)
    assert world.order().seq == after.seq
    assert world.show(name)["state"] == "done"


def test_a_candidate_is_marked_so_that_no_device_lets_it_serve(world: BenchWorld) -> None:
    name = world.queued("small")
    with read(world.api.context.engine) as session:
        data = [row.manifest for row in candidates_of(session, name)]
    assert [decode_manifest(manifest).bench_only for manifest in data] == [True, True]
    with pytest.raises(UsageError, match="benching only"):
        world.api.context.tuf_repo.publish("pairs", 1_000_001, data[1], world.clock())


def test_devices_may_fetch_a_candidate_only_while_its_round_runs(world: BenchWorld) -> None:
    name = world.queued("small")
    with read(world.api.context.engine) as session:
        manifest = decode_manifest(candidates_of(session, name)[1].manifest)
    model = manifest.artifact("model").sha256
    engine = world.api.context.engine
    with write(engine) as session:  # versions of this server hold the same bytes; they must not answer for the round
        for version in ("1", "2"):
            session.connection().exec_driver_sql(f"UPDATE version SET state = 'imported' WHERE number = {version}")
    assert ArtifactIndex(engine).find(model) is None
    world.tick()
    table = ArtifactIndex(engine).find(model)
    assert table is not None
    assert sum(chunk.size_bytes for chunk in table.chunks) == manifest.artifact("model").size_bytes
    world.report()
    world.tick()
    assert ArtifactIndex(engine).find(model) is None


def test_a_candidate_that_fails_there_does_not_end_the_round(world: BenchWorld) -> None:
    name = world.queued("small", "tiny")
    world.tick()
    world.report(Outcome.REFUSED, code="golden_failed", detail="0.2 on 64 samples")
    world.tick()
    world.report()
    world.tick()
    shown = world.show(name)
    assert [(c["state"], c["code"]) for c in shown["candidates"]] == [("failed", "golden_failed"), ("benched", None)]
    assert (shown["state"], shown["reason"]) == ("done", f"measured 1 of 2 on {DEVICE}")


def test_a_report_on_other_bytes_is_no_measurement(world: BenchWorld) -> None:
    name = world.queued("small")
    world.tick()
    world.report(sha256="c" * 64)
    world.tick()
    assert (world.states(name), world.show(name)["state"]) == (["failed"], "failed")


def test_a_device_that_does_not_answer_costs_one_timeout(world: BenchWorld) -> None:
    name = world.queued("small", "tiny", timeout_s=60)
    world.tick()
    world.clock.forward(seconds=61)
    world.tick()
    shown = world.show(name)
    assert (shown["state"], world.states(name)) == ("failed", ["timed_out", "skipped"])
    assert "did not report on small within 60 s" in shown["reason"]
    assert world.order().slots["pairs"].target == "pairs/1.json"


@pytest.mark.parametrize(
    ("code", "early", "said"),
    [
        ("bench_only", False, "was not enrolled for benching"),
        ("signature_invalid", True, "refused small"),
    ],
)
def test_a_refusal_that_holds_for_all_ends_the_round(world: BenchWorld, code: str, early: bool, said: str) -> None:
    name = world.queued("small", "tiny")
    world.tick()
    world.clock.forward(seconds=1)
    more: dict[str, Any] = {"assignment_seq": 0} if early else {}
    world.report(Outcome.REFUSED, code=code, detail="no", **more)
    world.tick()
    assert (world.show(name)["state"], world.states(name)) == ("failed", ["failed", "skipped"])
    assert said in world.show(name)["reason"]


def test_a_rollout_goes_first(world: BenchWorld) -> None:
    name = world.queued("small", "tiny")
    world.tick()
    newer = world.give(1)
    world.tick()
    assert "got another assignment" in world.show(name)["reason"]
    world.tick(2)
    assert world.order().seq == newer  # nothing is given back over it


def test_a_device_at_work_is_left_alone(world: BenchWorld) -> None:
    world.hello(state="probation")
    name = world.queued("small", wait_s=30)
    world.tick()
    assert world.show(name)["state"] == "queued"
    world.hello()
    world.tick()
    assert world.show(name)["state"] == "running"


def test_a_round_waits_for_the_one_before(world: BenchWorld) -> None:
    first = world.queued("small")
    world.clock.forward(seconds=1)
    second = world.queued("tiny", wait_s=600)
    world.tick()
    assert (world.show(first)["state"], world.show(second)["state"]) == ("running", "queued")
    world.report()
    world.tick(3)
    assert (world.show(first)["state"], world.show(second)["state"]) == ("done", "running")


def test_no_device_in_time_is_said(world: BenchWorld) -> None:
    world.clock.forward(minutes=30)  # it was not heard of since
    name = world.queued("small", wait_s=10)
    world.tick()
    world.clock.forward(seconds=11)
    world.tick()
    shown = world.show(name)
    assert (shown["state"], shown["reason"]) == (
        "failed",
        f"no bench device of class {CLASS} was online and at rest within 10 s",
    )


def test_a_missing_signing_key_is_said(world: BenchWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    name = world.queued("small")

    def offline(*_: object) -> None:
        raise UsageError("key_missing", "the key of targets is not here")

    monkeypatch.setattr(ImageRepository, "ensure_bench", offline)
    world.tick()
    assert world.show(name)["reason"] == "its candidates could not be signed: the key of targets is not here"


def test_a_revoked_device_ends_the_round(world: BenchWorld) -> None:
    name = world.queued("small", "tiny")
    world.tick()
    with write(world.api.context.engine) as session:
        session.get_one(Device, DEVICE).state = "revoked"
    world.report()
    world.tick()
    assert "no active device any more" in world.show(name)["reason"]


def test_a_server_killed_at_any_step_goes_on_where_it_was(world: BenchWorld) -> None:
    """Nothing is kept in memory: a fresh `BenchRounds` does each step."""
    name = world.queued("small", "tiny")
    context = world.api.context
    for _ in range(6):
        type(world.rounds)(context.engine, context.tuf_repo, world.orders).tick(world.clock())
        if "sent" in world.states(name):
            world.report()
    assert (world.show(name)["state"], listed(world)) == ("done", [])


def test_a_bench_report_does_not_change_what_the_books_say_runs(world: BenchWorld) -> None:
    world.queued("small")
    world.tick()
    world.report(model="other-model")
    with read(world.api.context.engine) as session:
        slot = session.get_one(DeviceSlot, (DEVICE, "pairs"))
    assert slot.version == 1
