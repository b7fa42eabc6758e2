"""`wavegate model` against a real server, with real bundles."""

from pathlib import Path

from tests.support.api_server import Api
from tests.support.bundles import write_pair_bundle
from tests.support.cli import Cli


def test_a_directory_is_zipped_imported_and_published(cli: Cli, tmp_path: Path) -> None:
    bundle = write_pair_bundle(tmp_path / "b", floor=0.7)
    result = cli("model", "import", bundle)
    assert result.out.splitlines()[0] == "pairs 3 is imported."
    assert "wavegate model publish pairs 3" in result.out
    again = cli("model", "import", bundle, "--json").json
    assert (again["created"], again["version"]["number"]) == (False, 3)
    assert cli("model", "publish", "pairs", 3).out == "pairs 3 is published.\n"
    assert cli("model", "publish", "pairs", 3, "--json").json["state"] == "published"


def test_a_zip_is_taken_as_it_is(cli: Cli, tmp_path: Path) -> None:
    import shutil

    bundle = write_pair_bundle(tmp_path / "b", floor=0.6)
    archive = Path(shutil.make_archive(str(tmp_path / "z"), "zip", bundle))
    assert cli("model", "import", archive, "--json").json["created"] is True


def test_what_is_no_bundle_is_refused_here_or_there(cli: Cli, tmp_path: Path) -> None:
    assert "holds no bundle.yaml" in cli("model", "import", tmp_path, code=1).err
    (tmp_path / "x.zip").write_bytes(b"no zip")
    assert "bundle_invalid" in cli("model", "import", tmp_path / "x.zip", code=1).err
    cli("model", "import", tmp_path / "missing", code=2)


def test_a_failing_golden_set_needs_unchecked(cli: Cli, tmp_path: Path) -> None:
    bundle = write_pair_bundle(tmp_path / "b", floor=1.5)
    assert "golden set" in cli("model", "import", bundle, code=1).err
    assert cli("model", "import", bundle, "--unchecked", "--json").json["created"] is True


def test_list_and_show_print_what_there_is(cli: Cli) -> None:
    assert "pairs" in cli("model", "list").out
    assert cli("model", "list", "--json").json["items"][0]["name"] == "pairs"
    assert "published" in cli("model", "show", "pairs").out
    assert [v["number"] for v in cli("model", "show", "pairs", "--json").json["items"]] == [2, 1]
    one = cli("model", "show", "pairs", 1).out
    assert "accuracy 100.00% over 64 golden samples, limit 90.00%" in one
    assert cli("model", "show", "pairs", 1, "--json").json["number"] == 1
    assert "no model 'none'" in cli("model", "show", "none", code=1).err


def test_an_alias_is_set_shown_and_cleared(cli: Cli) -> None:
    assert cli("model", "alias", "pairs", "champion", 1).out == "champion of pairs is 1.\n"
    assert "champion" in cli("model", "show", "pairs").out
    assert cli("model", "alias", "pairs", "champion", "--json").json["champion"] is None
    assert "not published" in cli("model", "alias", "pairs", "challenger", 2, code=1).err


def test_revoke_takes_it_off_the_list(cli: Cli, api: Api) -> None:
    assert cli("model", "revoke", "pairs", 1, "--reason", "x").out == "pairs 1 is revoked; 0 devices still run it.\n"
    assert cli("model", "revoke", "pairs", 1, "--json").json["state"] == "revoked"
