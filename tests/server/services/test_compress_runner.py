"""Compression jobs on the server with real processes: run, killed, cancelled, queued, and a registry that stays whole."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from tests.support.api_server import Api
from tests.support.compress_jobs import Queue, alive
from tests.support.waiting import wait_until
from wavegate_server.adapters import clock
from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.database.tables import Version
from wavegate_server.adapters.store.audit import verify_chain
from wavegate_server.adapters.store.compress_jobs import ask_cancel, event_page

pytestmark = pytest.mark.timeout(240)  # a real job starts some ten processes

RESULT: dict[str, Any] = {"chosen": None, "out": None, "verdicts": [], "candidates": []}
TELL = "import json, os, pathlib, sys, time\nwork = json.loads(sys.stdin.readline())\n"
STEP = "print(json.dumps({'stage': 'quantising', 'candidate': 'x', 'best': '', 'share': 0.5}), flush=True)\n"
DONE = f"pathlib.Path(work['result']).write_text(json.dumps({{'result': {RESULT!r}}}))\n"


@pytest.fixture
def queue(api: Api) -> Iterator[Queue]:
    opened = Queue(api)
    yield opened
    opened.close()


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write a module that a runner then starts as its child."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path.cwd())]))

    def module(text: str, name: str = "some_child") -> str:
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        return name

    return module


def versions(queue: Queue) -> list[Version]:
    with read(queue.api.context.engine) as session:
        assert verify_chain(session) is None
        return list(session.exec(select(Version).order_by(Version.number)))  # type: ignore[arg-type]  # a column


def stages(queue: Queue, number: int) -> list[str]:
    with read(queue.api.context.engine) as session:
        return [event.stage for event in event_page(session, number).items]


def children_of(pid: int) -> list[int]:
    found = [task.joinpath("children").read_text().split() for task in Path(f"/proc/{pid}/task").iterdir()]
    return [int(text) for texts in found for text in texts]


def test_a_job_compresses_a_version_into_a_new_one(queue: Queue) -> None:
    number = queue.add()
    assert queue.runner().run_next()
    job = queue.job(number)
    assert (job.state, job.result_version, job.code) == ("met", 3, None), job.reason
    made = versions(queue)[-1]
    assert (made.number, made.parent, made.state) == (3, 1, "imported")
    assert made.recipe == "int8-dynamic-per-channel"
    assert [verdict["met"] for verdict in job.result["verdicts"]] == [True, True]
    assert {row["recipe"] for row in job.result["candidates"]} == {"original", "int8-dynamic-per-channel"}
    assert "quantising" in stages(queue, number)
    assert stages(queue, number)[-1] == "writing the result bundle"
    assert not list((queue.api.context.settings.compress_dir / "jobs").iterdir())
    assert not queue.runner().run_next()


def test_killed_with_its_server_it_goes_on_from_its_finished_steps(queue: Queue) -> None:
    number = queue.add()
    command = [sys.executable, "-m", "tests.support.compress_server", str(queue.api.context.settings.data_dir)]
    server = subprocess.Popen(command)
    try:
        wait_until(lambda: "quantising" in stages(queue, number))
        family = children_of(server.pid)
    finally:
        server.kill()
        server.wait()
    assert family
    wait_until(lambda: not any(alive(pid) for pid in family))
    assert queue.job(number).state == "running"
    assert len(versions(queue)) == 2
    assert queue.runner().run_next()
    job = queue.job(number)
    assert (job.state, job.attempt, job.result_version) == ("met", 2, 3), job.reason
    assert job.result["cached_steps"] >= 3


def test_its_process_killed_it_is_tried_again_and_a_crash_that_repeats_is_given_up(queue: Queue, child: Any) -> None:
    number = queue.add()
    runner = queue.runner(
        child(TELL + STEP + "sys.stderr.write('oh no\\n'); sys.stderr.flush()\nos.kill(os.getpid(), 9)\n")
    )
    assert runner.run_next()
    job = queue.job(number)
    assert (job.state, job.attempt) == ("queued", 1)
    assert "signal 9" in job.reason
    assert runner.run_next()
    assert runner.run_next()
    job = queue.job(number)
    assert (job.state, job.attempt, job.code) == ("failed", 3, "internal")
    assert job.log.strip() == "oh no"
    assert len(versions(queue)) == 2


def test_a_cancelled_job_leaves_no_process(queue: Queue, child: Any, tmp_path: Path) -> None:
    child(
        "import os, pathlib, time\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\ntime.sleep(90)\n",
        "sleeper",
    )
    call = "from wavegate_server.compress import job_program\nimport signal\nsignal.signal(15, job_program._stop)\n"
    number = queue.add()
    module = child(
        TELL
        + call
        + STEP
        + "from wavegate_server.compress.process.children import run_child\nrun_child('sleeper', {})\n"
    )
    queue.runner(module).start()
    wait_until(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text() != "")
    inner = int((tmp_path / "pid").read_text())
    outer = children_of(os.getpid())
    assert alive(inner)
    for changed in (True, False):
        with write(queue.api.context.engine) as session:
            assert ask_cancel(session, number, actor="tester", now=clock.now()) is changed
    job = queue.until_state(number, "cancelled")
    assert "cancelled" in job.reason
    wait_until(lambda: not alive(inner))
    assert not any(alive(pid) for pid in outer if pid not in children_of(os.getpid()))
    assert len(versions(queue)) == 2
    queue.close()
    assert not list((queue.api.context.settings.compress_dir / "jobs").iterdir())


def test_a_child_that_ignores_the_signal_is_killed(queue: Queue, child: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wavegate_server.compress.process.job_child.GRACE_S", 0.5)
    number = queue.add()
    queue.runner(child("import signal\nsignal.signal(15, signal.SIG_IGN)\n" + TELL + STEP + "time.sleep(90)\n")).start()
    wait_until(lambda: queue.job(number).progress != {})
    with write(queue.api.context.engine) as session:
        ask_cancel(session, number, actor="tester", now=clock.now())
    queue.until_state(number, "cancelled")


def test_two_jobs_at_once_queue_up_and_run_in_their_order(queue: Queue, child: Any, tmp_path: Path) -> None:
    first, second = queue.add(), queue.add("size=-5%", version=2)
    gate = tmp_path / "go"
    wait = f"while not os.path.exists({str(gate)!r}): time.sleep(0.02)\n"
    queue.runner(child(TELL + STEP + wait + DONE)).start()
    wait_until(lambda: queue.job(first).progress != {})
    assert (queue.job(first).state, queue.job(second).state) == ("running", "queued")
    gate.touch()
    jobs = [queue.until_state(number, "not_met") for number in (first, second)]
    assert jobs[0].finished_at is not None
    assert jobs[1].started_at is not None
    assert jobs[0].finished_at <= jobs[1].started_at


def test_a_server_that_stops_puts_its_job_back(queue: Queue, child: Any) -> None:
    number = queue.add()
    runner = queue.runner(child(TELL + STEP + "time.sleep(90)\n"))
    runner.start()
    wait_until(lambda: queue.job(number).progress != {})
    runner.stop()
    job = queue.job(number)
    assert (job.state, job.attempt) == ("queued", 0)
    assert queue.runner(child(TELL + DONE)).run_next()
    assert queue.job(number).state == "not_met"


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (TELL + "sys.exit('no idea')\n", "internal", "no idea"),
        (TELL, "internal", "status 0"),
        (
            TELL
            + 'pathlib.Path(work[\'result\']).write_text(\'{"error": {"code": "bundle_invalid", "detail": "NaN"}}\')\n',
            "bundle_invalid",
            "NaN",
        ),
        (TELL + "time.sleep(90)\n", "internal", "did not end"),
    ],
    ids=["fails", "says nothing", "told error", "hangs"],
)
def test_what_goes_wrong_is_told_and_the_registry_stays_whole(
    queue: Queue, child: Any, text: str, code: str, words: str
) -> None:
    number = queue.add(time_s=10)
    if "sleep" in text:
        with write(queue.api.context.engine) as session:
            session.get_one(type(queue.job(number)), number).time_s = 0.5
    assert queue.runner(child(text), slack_s=0.5).run_next()
    job = queue.job(number)
    assert (job.state, job.code) == ("failed", code)
    assert words in job.reason
    assert len(versions(queue)) == 2


def test_a_flood_on_both_pipes_does_not_stop_a_job(queue: Queue, child: Any) -> None:
    flood = (
        "for n in range(20000): sys.stderr.write('warning ' * 9 + chr(10)); sys.stdout.write('noise ' * 9 + chr(10))\n"
    )
    number = queue.add()
    assert queue.runner(child(TELL + flood + DONE)).run_next()
    job = queue.job(number)
    assert job.state == "not_met"
    assert len(job.log) <= 4000


def test_a_result_the_registry_refuses_fails_the_job_and_adds_no_version(queue: Queue, child: Any) -> None:
    met = {**RESULT, "chosen": "x", "out": "somewhere"}
    copy = "import shutil; shutil.copytree(work['bundle'], work['out'])\n"
    spoil = "p = pathlib.Path(work['out']) / 'bundle.yaml'; p.write_text(p.read_text().replace('floor: 0.9', 'floor: 1.5'))\n"
    done = f"pathlib.Path(work['result']).write_text(json.dumps({{'result': {met!r}}}))\n"
    number = queue.add()
    assert queue.runner(child(TELL + copy + spoil + done)).run_next()
    job = queue.job(number)
    assert (job.state, job.code, job.result_version) == ("failed", "bundle_invalid", None)
    assert "golden set" in job.reason
    assert len(versions(queue)) == 2


def test_a_result_that_was_there_when_the_server_died_is_imported_without_another_run(queue: Queue, child: Any) -> None:
    met = {**RESULT, "chosen": "x", "out": "somewhere"}
    done = f"pathlib.Path(work['result']).write_text(json.dumps({{'result': {met!r}}}))\nos.kill(os.getpid(), 9)\n"
    copy = "import shutil; shutil.copytree(work['bundle'], work['out'])\n"
    number = queue.add()
    runner = queue.runner(child(TELL + copy + done))
    assert runner.run_next()
    job = queue.job(number)
    assert (job.state, job.result_version) == ("met", 1)  # the copy is version 1's own bundle
