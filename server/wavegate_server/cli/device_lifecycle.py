"""`wavegate device reissue` and `replace`: a device's identity over its life."""

from typing import Annotated

import typer

from wavegate_server.cli.client import connect
from wavegate_server.cli.output import JsonFlag, print_json
from wavegate_server.client import at

__all__ = ["reissue", "replace"]

Reason = Annotated[str, typer.Option(help="Why, for the audit log.")]


def reissue(
    context: typer.Context,
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="The device's id.", show_default=False)],
    reason: Reason = "",
    as_json: JsonFlag = False,
) -> None:
    """End a device's identity, wherever it was copied to, and make a token for a new one.

    Example: wavegate device reissue kiosk-1 --reason "SD card was copied"
    """
    with connect(context) as client:
        answer = client.post(at("devices", device, "reissue"), {"reason": reason})
    if as_json:
        print_json(answer)
        return
    typer.echo(answer["token"])  # alone on standard output, so that a script can take it
    _remark(
        f"Every machine with the identity of {device} is shut out. On the right one: wavegate-agent enroll --replace"
    )


def replace(
    context: typer.Context,
    old: Annotated[str, typer.Argument(metavar="OLD", help="The device that goes.", show_default=False)],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Id of the new hardware.", show_default=False)],
    reason: Reason = "",
    as_json: JsonFlag = False,
) -> None:
    """Put new hardware in a device's place: it takes over class, site, labels and what the old one runs; the old one is revoked.

    Example: wavegate device replace kiosk-1 kiosk-1b --reason "broken display"
    """
    with connect(context) as client:
        answer = client.post(at("devices", old, "replace"), {"new": new, "reason": reason})
    if as_json:
        print_json(answer)
        return
    typer.echo(answer["token"])
    _remark(f"{old} is revoked, {new} takes its place. On the new hardware: wavegate-agent enroll")


def _remark(text: str) -> None:
    """A remark on standard error."""
    typer.echo(text, err=True)
