"""`wavegate compress` with a server, without one, and on one; `wavegate compress-job`."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.api_server import Api
from tests.support.bundles import write_pair_bundle
from tests.support.cli import Cli
from tests.support.compress_jobs import Queue
from tests.support.waiting import wait_until
from wavegate_server.adapters.store.tokens import Role
from wavegate_server.cli.main import run
from wavegate_server.core.compress.recipes import named

pytestmark = pytest.mark.timeout(240)  # a real job starts some ten processes

BUDGET = "size=-10%,drop=40pt"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def one_recipe(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """What each recipe does is tested elsewhere; finished steps are shared by the jobs of this module."""
    monkeypatch.setattr("wavegate_server.core.compress.recipes.RECIPES", (named("int8-dynamic-per-channel"),))
    monkeypatch.setenv("WAVEGATE_CACHE", str(cache))


@pytest.fixture
def queue(api: Api) -> Iterator[Queue]:
    opened = Queue(api)
    yield opened
    opened.close()


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A child that tells two steps and finds nothing."""
    result = {
        "chosen": None, "out": None, "words": ["size=-10%: not met"], "comparison": [], "samples": 64, "notes": [],
        "verdicts": [{"item": "size=-10%", "met": False, "value": 0.0, "low": None, "high": None}],
        "candidates": [], "measured_on": "host only", "for": None, "threads": 1, "seconds": 1.0,
    }  # fmt: skip
    text = (
        "import json, pathlib, sys, time, os\nwork = json.loads(sys.stdin.readline())\n"
        "for stage in ('quantising', 'racing'):\n"
        "    print(json.dumps({'stage': stage, 'candidate': 'x', 'share': 0.1}), flush=True)\n"
        f"while os.path.exists({str(tmp_path / 'hold')!r}): time.sleep(0.05)\n"
        f"pathlib.Path(work['result']).write_text(json.dumps({{'result': {result!r}}}))\n"
    )
    (tmp_path / "quick_child.py").write_text(text, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path.cwd())]))
    return "quick_child"


def versions(api: Api) -> list[tuple[int, int | None, str]]:
    items = api.client.get("/api/v1/models/pairs/versions").json()["items"]
    return [(item["number"], item["parent"], item["state"]) for item in items[::-1]]


def test_a_local_job_is_imported_with_its_parent_and_says_what_comes_next(cli: Cli, api: Api, tmp_path: Path) -> None:
    source = write_pair_bundle(tmp_path / "b", floor=0.7)
    told = cli("compress", source, "--budget", BUDGET, "--out", tmp_path / "small")
    assert "imported as pairs 4, made from pairs 3, not published" in told.out
    assert "next: wavegate model publish pairs 4" in told.out
    assert "budget item" in told.out
    assert versions(api)[2:] == [(3, None, "imported"), (4, 3, "imported")]
    again = cli("compress", source, "--budget", BUDGET, "--out", tmp_path / "again", "--json").json
    assert again["imported"]["original"] == 3  # known: not imported twice
    (job, _) = api.client.get("/api/v1/compress-jobs").json()["items"]
    assert (job["state"], job["version"], job["result_version"]) == ("met", 3, again["imported"]["result"])
    assert {row["recipe"] for row in job["result"]["candidates"]} == {"original", "int8-dynamic-per-channel"}


def test_the_json_form_and_the_exit_code_of_a_budget_that_is_not_met(cli: Cli, api: Api, tmp_path: Path) -> None:
    source = api.context.settings.data_dir / "bundle-1"
    told = cli("compress", source, "--budget", "size=-99%", "--out", tmp_path / "o", "--json", "--no-import", code=3)
    assert told.err == ""
    document = told.json
    assert set(document["verdicts"][0]) == {"item", "met", "value", "low", "high"}
    wanted = {"recipe", "size_bytes", "p50_ms", "metric", "drop_pt", "agreement", "offered", "reason"}
    assert all(wanted <= set(row) for row in document["candidates"])
    assert (document["imported"], document["import_note"]) == (None, "")
    assert len(versions(api)) == 2
    assert api.client.get("/api/v1/compress-jobs").json()["items"] == []


def test_it_works_without_a_server(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("WAVEGATE_TOKEN", "WAVEGATE_CA", "WAVEGATE_SERVER"):
        monkeypatch.delenv(name, raising=False)
    source = str(api.context.settings.data_dir / "bundle-1")
    for at, (directory, words) in enumerate(
        ((tmp_path / "nothing", "no server is set up"), (api.context.settings.data_dir, "cannot reach"))
    ):
        monkeypatch.setenv("WAVEGATE_DATA_DIR", str(directory))
        arguments = ["--server", "https://localhost:9"] if at else []
        out = tmp_path / f"out-{at}"
        assert run([*arguments, "compress", source, "--budget", BUDGET, "--out", str(out)]) == 0
        told = " ".join(capsys.readouterr().out.split())
        assert words in told
        assert "next: wavegate model import" in told
        assert (out / "bundle.yaml").is_file()


def test_a_server_that_refuses_does_not_spoil_the_result(
    cli: Cli, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAVEGATE_TOKEN", api.token(Role.VIEWER))
    source = api.context.settings.data_dir / "bundle-1"
    document = cli("compress", source, "--budget", BUDGET, "--out", tmp_path / "o", "--json").json
    assert document["imported"] is None
    assert "refused" in document["import_note"]
    assert len(versions(api)) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("bundle", "--budget", "smaller"),
        ("bundle", "--time", "soon"),
        ("bundle", "--detach"),
        ("pairs@1", "--out", "x"),
        ("bundle", "--remote", "--metric", "m.py:f"),
    ],
)
def test_a_wrong_command_line_is_2(cli: Cli, api: Api, arguments: tuple[str, ...]) -> None:
    given = [str(api.context.settings.data_dir / "bundle-1") if text == "bundle" else text for text in arguments]
    cli("compress", *given, code=2)
    assert api.client.get("/api/v1/compress-jobs").json()["items"] == []


@pytest.mark.parametrize("what", ["nothing-here", "pairs@99", "other@1"])
def test_what_is_not_there_is_1(cli: Cli, what: str) -> None:
    assert "no" in cli("compress", what, code=1).err


def test_a_version_is_compressed_by_the_server_and_followed(cli: Cli, queue: Queue, quick: str) -> None:
    queue.runner(quick).start()
    told = cli("compress", "pairs@1", "--budget", "size=-10%", code=3)
    assert "job 1: pairs 1, budget size=-10%: not_met" in told.out
    assert "budget not met" in told.out
    document = cli("compress", "pairs@2", "--budget", "size=-10%", "--for", "pi4", "--json", code=3).json
    assert (document["job"]["version"], document["job"]["class"], document["chosen"]) == (2, "pi4", None)
    assert document["verdicts"][0]["item"] == "size=-10%"
    listed = cli("compress-job", "list", "--json").json["items"]
    assert [job["id"] for job in listed] == [2, 1]
    assert "not_met" in cli("compress-job", "list").out
    assert "NOT met" in cli("compress-job", "show", 1).out
    assert cli("compress-job", "show", 9, code=1).err


def test_a_bundle_is_uploaded_and_left_to_the_server(cli: Cli, api: Api, tmp_path: Path) -> None:
    source = write_pair_bundle(tmp_path / "b", floor=0.7)
    told = cli("compress", source, "--remote", "--detach", "--budget", "size=-10%", "--time", "90s")
    assert "wavegate compress-job watch 1" in told.out
    assert versions(api)[-1] == (3, None, "imported")
    assert "job 1 is cancelled" in cli("compress-job", "cancel", 1).out
    assert cli("compress-job", "cancel", 1, "--json").json["state"] == "cancelled"
    cli("compress-job", "watch", 1, code=1)


def test_ctrl_c_asks_and_a_no_leaves_it_running(
    cli: Cli, queue: Queue, quick: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hold").touch()
    queue.runner(quick).start()
    asked: list[str] = []

    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    def answer(text: str, **_: Any) -> bool:
        asked.append(text)
        (tmp_path / "hold").unlink(missing_ok=True)
        return False

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("wavegate_server.cli.compress.on_server.pause", interrupted)
    monkeypatch.setattr("typer.confirm", answer)
    told = cli("compress", "pairs@1", "--budget", "size=-10%", code=1)
    assert len(asked) == 1
    assert "goes on" in told.err
    wait_until(lambda: queue.job(1).state == "not_met")
