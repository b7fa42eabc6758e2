"""`wavegate token` against a real server."""

import pytest

from tests.support.cli import Cli


def test_a_token_is_made_listed_used_and_ended(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    token = cli("token", "create", "ci", "--role", "viewer", "--days", 9).out.strip()
    assert token.startswith("wgt_")
    assert cli("token", "create", "ci", "--json").json["role"] == "viewer"
    listed = cli("token", "list")
    assert "ci" in listed.out
    assert token not in listed.out
    number = cli("token", "list", "--json").json["items"][1]["id"]
    with monkeypatch.context() as patched:
        patched.setenv("WAVEGATE_TOKEN", token)
        assert cli("device", "list", "--json").json["items"] == []
        assert "(forbidden)" in cli("token", "list", code=1).err
    assert cli("token", "revoke", number).out == f"Token {number} (ci) is revoked.\n"
    monkeypatch.setenv("WAVEGATE_TOKEN", token)
    assert "(unauthenticated)" in cli("device", "list", code=1).err


def test_a_role_that_is_none_is_refused(cli: Cli) -> None:
    assert "(invalid)" in cli("token", "create", "x", "--role", "king", code=1).err
