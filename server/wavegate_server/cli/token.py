"""`wavegate token ...`: API tokens for people and programs."""

from typing import Annotated

import typer

from wavegate_server.adapters import clock
from wavegate_server.cli.client import connect
from wavegate_server.cli.output import JsonFlag, ago, lines, print_json, table
from wavegate_server.client import at

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who or what it is for.", show_default=False)],
    role: Annotated[
        str, typer.Option(help="viewer, operator (devices, rollouts), publisher (models) or admin.")
    ] = "viewer",
    days: Annotated[int | None, typer.Option(help="How long it lives; without, it does not expire.", min=1)] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make an API token; it is shown this once.

    Example: wavegate token create ci --role publisher --days 90
    """
    with connect(context) as client:
        answer = client.post("/tokens", {"name": name, "role": role, "days": days})
    if as_json:
        print_json(answer)
    else:
        typer.echo(answer["token"])  # alone on standard output, so that a script can take it


@app.command("list")
def list_tokens(context: typer.Context, as_json: JsonFlag = False) -> None:
    """List API tokens, without their secrets.

    Example: wavegate token list
    """
    with connect(context) as client:
        tokens = client.pages("/tokens")
    if as_json:
        print_json({"items": tokens})
        return
    now = clock.now()
    table(
        ["number#", "name", "begins with", "role", "made", "expires", "state"],
        [
            (
                t["id"],
                t["name"],
                t["prefix"],
                t["role"],
                ago(t["created_at"], now),
                t["expires_at"] or "never",
                _state(t["revoked"]),
            )
            for t in tokens
        ],
        empty="No tokens.",
    )


@app.command()
def revoke(
    context: typer.Context,
    number: Annotated[
        int, typer.Argument(metavar="NUMBER", help="From `wavegate token list`.", min=1, show_default=False)
    ],
    as_json: JsonFlag = False,
) -> None:
    """End an API token and the browser sessions opened with it, at once.

    Example: wavegate token revoke 3
    """
    with connect(context) as client:
        answer = client.post(at("tokens", number, "revoke"))
    if as_json:
        print_json(answer)
    else:
        lines(f"Token {number} ({answer['name']}) is revoked.")


def _state(revoked: bool) -> str:
    return "revoked" if revoked else "valid"
