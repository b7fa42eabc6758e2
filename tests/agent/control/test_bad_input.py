"""Bad input and bad luck: in every case what serves is what served, the report has the stable code, and a good assignment
afterwards still goes through.
"""

import contextlib
import subprocess
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from tests.support.agent_checks import LONG, TWENTY, still_good
from tests.support.agent_world import AgentWorld, RunningAgent
from tests.support.tuf_world import new_signer
from wavegate_shared.manifest import Requires, Slo
from wavegate_shared.states import DeviceState, Outcome
from wavegate_shared.wire import Assign, Bench

# --- bad input: refused, reported, nothing changes --------------------------------------------------------------------


def test_an_unsigned_assignment(running: RunningAgent, world: AgentWorld) -> None:
    world.send(Assign(envelope=msgspec.Raw(world.envelope(2, signer=new_signer()))))
    report = world.wait_code("signature_invalid")
    assert (report.outcome, report.assignment_seq, report.active_version) == (Outcome.REFUSED, 0, 1)
    assert running.host.live == 1
    still_good(running)


def test_an_expired_assignment(running: RunningAgent, world: AgentWorld) -> None:
    past = world.tuf.now - timedelta(hours=1)
    world.send(Assign(envelope=msgspec.Raw(world.envelope(2, issued=past - timedelta(days=1), expires=past))))
    world.wait_code("assignment_expired")
    assert running.host.live == 1
    still_good(running)


def test_an_assignment_for_another_device(running: RunningAgent, world: AgentWorld) -> None:
    world.send(Assign(envelope=msgspec.Raw(world.envelope(2, device="kiosk-2"))))
    world.wait_code("wrong_device")
    assert running.host.live == 1
    still_good(running)


def test_a_replayed_older_assignment(running: RunningAgent, world: AgentWorld) -> None:
    old = world.envelope(1, seq=1)
    running.install(2, seq=5)
    world.send(Assign(envelope=msgspec.Raw(old)))
    world.wait_code("assignment_replayed")
    assert running.host.live == 2
    still_good(running)


@pytest.mark.parametrize(
    "payload", [b"", b"\x01{", b"\x02abc", b"\x01[]", b"\x01" + b"x" * 200_000, b'\x01{"type":"?"}']
)
def test_a_malformed_message(running: RunningAgent, world: AgentWorld, payload: bytes) -> None:
    world.send_raw(payload)
    world.wait_code("message_malformed")
    assert running.host.live == 1
    still_good(running)


def test_an_envelope_that_is_none(running: RunningAgent, world: AgentWorld) -> None:
    world.send(Assign(envelope=msgspec.Raw(b'{"payload": 7}')))
    world.wait_code("message_malformed")
    still_good(running)


def test_a_flood_of_bad_messages_is_one_report(running: RunningAgent, world: AgentWorld) -> None:
    for _ in range(200):
        world.send_raw(b"\x01{")
    still_good(running)
    assert len([r for r in world.reports if r.code == "message_malformed"]) == 1


def test_a_tampered_chunk_is_fetched_again(running: RunningAgent, world: AgentWorld) -> None:
    world.damage = {len(world.chunks_sent) + 2}
    assert running.install(2).outcome is Outcome.PROVEN
    asked = [index for sha, index in world.chunks_sent if sha == world.models[2].artifact("model").sha256]
    assert len(asked) == len(set(asked)) + 1


def test_an_artifact_whose_chunks_lie_about_the_whole(running: RunningAgent, world: AgentWorld) -> None:
    manifest = world.models[2]
    model = msgspec.structs.replace(manifest.artifact("model"), sha256="e" * 64)
    world.objects["e" * 64] = world.objects[manifest.artifact("model").sha256]
    lying = [model if a.role == "model" else a for a in manifest.artifacts]
    world.republish(msgspec.structs.replace(manifest, version=9, artifacts=lying))
    report = running.install(9)
    assert (report.outcome, report.code) == (Outcome.REFUSED, "digest_mismatch")
    assert running.host.live == 1
    still_good(running, 4)


def test_a_version_that_does_not_load(running: RunningAgent, world: AgentWorld) -> None:
    running.host.fails[2] = "load_failed"
    report = running.install(2)
    assert (report.outcome, report.code, report.active_version) == (Outcome.REFUSED, "load_failed", 1)
    assert running.host.live == 1
    still_good(running)


def test_a_version_that_fails_its_golden_set_is_refused_even_when_offered_again(
    running: RunningAgent, world: AgentWorld
) -> None:
    running.host.golden_value[2] = 0.5
    report = running.install(2)
    assert (report.code, report.golden is not None and report.golden.value) == ("golden_failed", 0.5)
    assert running.install(2).code == "quarantined"
    running.host.golden_value.clear()
    assert running.install(2, slot={"override_quarantine": True}).outcome is Outcome.PROVEN
    assert "swap 2" in running.host.calls


def test_a_version_that_breaks_its_promise_on_the_bench(running: RunningAgent, world: AgentWorld) -> None:
    world.release(5, slo=Slo(p95_ms=1.0))
    running.host.bench_result = Bench(runs=40, p50_ms=2.0, p95_ms=3.0, cpu_ms=2.0)
    assert running.install(5).code == "bench_failed"
    assert running.host.live == 1


def test_a_version_that_misbehaves_live_is_reverted(running: RunningAgent, world: AgentWorld) -> None:
    seq = world.assign(2, probation=TWENTY)
    world.wait_state(DeviceState.PROBATION, seq)
    running.host.serve(2, 20, errors=12)
    report = world.wait_report(seq)
    assert (report.outcome, report.code, report.active_version) == (Outcome.REVERTED, "probation_failed", 1)
    assert (report.served, report.errors) == (20, 12)
    assert running.host.live == 1
    assert running.install(2).code == "quarantined"
    still_good(running)


def test_a_slow_version_is_reverted_by_the_devices_own_yardstick(running: RunningAgent, world: AgentWorld) -> None:
    running.host.serve(1, 400, latency_ms=5.0)
    seq = world.assign(2, probation=LONG)
    world.wait_state(DeviceState.PROBATION, seq)
    running.host.serve(2, 100, latency_ms=50.0)
    report = world.wait_report(seq)
    assert (report.outcome, report.code) == (Outcome.REVERTED, "probation_failed")
    assert running.host.live == 1


def test_a_version_that_crashes_live_is_reverted(running: RunningAgent, world: AgentWorld) -> None:
    seq = world.assign(2, probation=LONG)
    world.wait_state(DeviceState.PROBATION, seq)
    running.host.crash(2, 4)
    report = world.wait_report(seq)
    assert (report.outcome, report.code) == (Outcome.REVERTED, "candidate_crashed")
    assert running.host.live == 1


def test_a_first_version_that_misbehaves_leaves_nothing_serving(tmp_path: Path, world: AgentWorld) -> None:
    with RunningAgent(tmp_path, world) as running:
        seq = world.assign(1, probation=TWENTY)
        world.wait_state(DeviceState.PROBATION, seq)
        running.host.serve(1, 20, errors=20)
        report = world.wait_report(seq)
        assert (report.outcome, report.active_version) == (Outcome.REVERTED, 0)
        assert running.host.live == 0
        still_good(running)


def test_a_committed_version_that_crashes_in_a_loop(running: RunningAgent, world: AgentWorld) -> None:
    seq = world.assign(2)
    world.wait_report(seq)
    world.wait_state(DeviceState.IDLE, seq)
    running.host.crash(2, 4)
    report = world.wait_code("candidate_crashed")
    assert (report.outcome, report.active_version) == (Outcome.REVERTED, 1)
    assert running.host.live == 1


@pytest.mark.parametrize(
    ("requires", "code", "outcome"),
    [
        (Requires(classes=["x86"]), "incompatible", Outcome.REFUSED),
        (Requires(memory_mb=10**7), "memory_short", Outcome.DEFERRED),
    ],
)
def test_a_version_this_device_cannot_run(
    running: RunningAgent, world: AgentWorld, requires: Requires, code: str, outcome: Outcome
) -> None:
    world.release(6, requires=requires)
    report = running.install(6)
    assert (report.code, report.outcome) == (code, outcome)
    assert running.host.live == 1
    still_good(running)


def test_a_revoked_version(running: RunningAgent, world: AgentWorld) -> None:
    world.tuf.revoke("pairs", 3)
    assert running.install(2).code == "version_revoked"
    assert running.host.live == 1
    still_good(running)


def test_an_older_version_without_a_signed_rollback(running: RunningAgent, world: AgentWorld) -> None:
    running.install(3)
    assert running.install(2).code == "version_older"
    assert running.host.live == 3


# --- full disk --------------------------------------------------------------------------------------------------------


def test_a_version_that_does_not_fit_is_put_off(tmp_path: Path, world: AgentWorld) -> None:
    with RunningAgent(tmp_path, world) as running:
        running.install(1)
        running.agent._store._free = lambda _: 1000
        report = running.install(2)
        assert (report.outcome, report.code, report.active_version) == (Outcome.DEFERRED, "disk_full", 1)
        assert running.host.live == 1
        world.wait(lambda: running.state_now == "idle", "idle")
        assert list((tmp_path / "models" / ".staging").iterdir()) == []
        running.agent._store._free = lambda _: 10**12
        assert running.install(2).outcome is Outcome.PROVEN


def test_a_really_full_disk(tmp_path: Path, world: AgentWorld) -> None:
    """The whole state directory lies on two megabytes: a version of four is put off, everything else goes on."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        world.release(5, model=b"m" * (4 << 20))
        with RunningAgent(place, world) as running:
            running.install(1)
            report = running.install(5)
            assert (report.outcome, report.code, report.active_version) == (Outcome.DEFERRED, "disk_full", 1)
            assert running.host.live == 1
            world.wait(lambda: running.state_now == "idle", "idle")
            fill(place, leave=8192)
            world.assign(2)  # there is not even room to keep it
            world.wait(lambda: [r.code for r in world.reports].count("disk_full") == 2, "the second refusal")
            assert running.host.live == 1
            (place / "filler").unlink()
            still_good(running)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path, leave: int) -> None:
    """Fill the disk but for `leave` bytes, whatever the agent writes in the meantime."""
    (place / "room").write_bytes(b"x" * leave)
    with contextlib.suppress(OSError), (place / "filler").open("wb", buffering=0) as filler:
        while filler.write(b"x" * 4096):
            pass
    (place / "room").unlink()
