"""The command tree: quick to list, every command with help and an example, exit codes as documented."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from tests.support.cli import Cli
from wavegate_server.cli.main import PARTS, build_app, run
from wavegate_shared import __version__


def commands(group: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every command below a group, with the words that reach it."""
    children = getattr(group, "commands", None)
    if children is None:
        yield path, group
        return
    for name, child in children.items():
        yield from commands(child, (*path, name))


ALL = [
    (path, command)
    for path, command in commands(typer.main.get_command(build_app()))
    if not getattr(command, "hidden", False)
]


def test_every_part_is_there() -> None:
    assert [part.name for part in PARTS if importlib.util.find_spec(part.module) is None] == []


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_command_has_help_with_an_example(path: tuple[str, ...], command: object) -> None:
    text = getattr(command, "help", "") or ""
    assert f"Example: wavegate {' '.join(path)}" in " ".join(text.split()), text
    for parameter in getattr(command, "params", ()):
        assert parameter.name in ("help", "as_json") or getattr(parameter, "help", None), parameter.name


SERVER_COMMANDS = [
    path
    for path, _ in ALL
    if path[0] in ("model", "device", "rollout", "token", "compress", "doctor", "keys", "broker")
]


@pytest.mark.parametrize("path", SERVER_COMMANDS, ids=" ".join)
def test_every_command_prints_json_when_asked(path: tuple[str, ...]) -> None:
    options = {option for parameter in getattr(dict(ALL)[path], "params", ()) for option in parameter.opts}
    assert "--json" in options


def test_help_lists_every_part_and_the_exit_codes_without_loading_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(part.name in out and part.summary[:30] in out for part in PARTS)
    assert "Exit codes: 0 done, 1 it failed, 2 the command line was wrong, 3" in out


def test_help_is_quick_because_it_imports_no_server() -> None:
    code = (
        "import sys; from wavegate_server.cli.main import run; run(['--help']); "
        "heavy = {'fastapi', 'sqlmodel', 'sqlalchemy', 'httpx', 'pydantic', 'onnxruntime', 'numpy', 'tuf'}; "
        "sys.exit(repr(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert ended.returncode == 0, ended.stderr


def test_the_installed_command_talks_to_the_server(cli: Cli) -> None:
    script = Path(sys.executable).with_name("wavegate")
    ended = subprocess.run(
        [script, "model", "list", "--json"], capture_output=True, text=True, timeout=30, env=os.environ
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["items"][0]["name"] == "pairs"


def test_a_wrong_command_line_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["nonsense"], ["device"], ["device", "nonsense"], ["device", "show"], ["model", "show", "--bad"]):
        assert run(arguments) == 2, arguments
    assert "No such command" in capsys.readouterr().err


def test_an_error_as_json_is_a_problem_on_standard_error(cli: Cli) -> None:
    result = cli("device", "show", "kiosk-9", "--json", code=1)
    assert result.out == ""
    problem = json.loads(result.err)
    assert (problem["type"], problem["status"]) == ("urn:wavegate:error:not_found", 404)
    local = json.loads(cli("rollout", "create", "pairs", 1, "--soak", "x", "--json", code=2).err)
    assert local["code"] == "invalid"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"wavegate {__version__}\n"


def test_a_value_that_looks_like_a_command_is_not_one(cli: Cli) -> None:
    assert cli("--server", cli.url, "device", "list", "--json").json == {"items": []}
