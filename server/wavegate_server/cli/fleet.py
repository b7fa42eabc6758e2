"""`wavegate fleet ...`: what is true of the whole fleet."""

from typing import Annotated, Any

import typer

from wavegate_server.adapters import clock
from wavegate_server.cli.client import connect
from wavegate_server.cli.output import JsonFlag, ago, lines, print_json, table
from wavegate_server.cli.parse import parse_devices
from wavegate_server.client import Client, at
from wavegate_shared.errors import UsageError

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
defaults = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
app.add_typer(defaults, name="defaults", help="What devices get that come after a rollout.")

Model = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.", show_default=False)]
Devices = Annotated[str, typer.Option(help="all, or a filter: class=edge-a,site=berlin,label.ring=early.")]


@defaults.command("list")
def list_defaults(
    context: typer.Context,
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List fleet defaults, newest first. Of several that fit a device, the newest in effect counts.

    Example: wavegate fleet defaults list --model address-match
    """
    with connect(context) as client:
        found = _defaults(client, model)
    if as_json:
        print_json({"items": found})
        return
    now = clock.now()
    table(
        ["number#", "model", "version#", "devices", "in effect", "by", "set"],
        [
            (
                one["id"],
                one["model"],
                one["version"],
                one["devices"],
                "yes" if one["in_effect"] else "no",
                one["rollout"] or one["set_by"],
                ago(one["set_at"], now),
            )
            for one in found
        ],
        empty="No fleet defaults. A completed rollout to a class, a site or all devices leaves one behind.",
    )


@defaults.command("set")
def set_default(
    context: typer.Context,
    model: Model,
    version: Annotated[int, typer.Argument(metavar="VERSION", help="A published version.", min=1, show_default=False)],
    devices: Devices = "all",
    ahead: Annotated[bool, typer.Option("--ahead", help="Also where no registered device fits yet.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Set what devices get that enrol, return, or change class or labels; those that wait get it now, a few at a time.

    Example: wavegate fleet defaults set address-match 2 --devices class=locker-small
    """
    with connect(context) as client:
        body = {"model": model, "version": version, "devices": parse_devices(devices), "ahead": ahead}
        one = client.post("/fleet/defaults", body)
    if as_json:
        print_json(one)
    else:
        lines(f"Devices that fit {one['devices']!r} get {model} v{version} from now on.")


@defaults.command("clear")
def clear_default(context: typer.Context, model: Model, devices: Devices = "all", as_json: JsonFlag = False) -> None:
    """End the fleet defaults of a model for these devices; devices that have the version keep it.

    Example: wavegate fleet defaults clear address-match --devices class=locker-small
    """
    with connect(context) as client:
        wanted = _as_said(parse_devices(devices))
        numbers = [one["id"] for one in _defaults(client, model) if one["devices"] == wanted]
        if not numbers:
            raise UsageError(
                "not_found", f"no fleet default of {model} for {wanted!r}; see: wavegate fleet defaults list"
            )
        cleared = [client.post(at("fleet", "defaults", number, "clear")) for number in numbers]
    if as_json:
        print_json({"items": cleared})
    else:
        lines(f"{len(cleared)} cleared. Devices that fit {wanted!r} get no version of {model} by themselves.")


def _defaults(client: Client, model: str | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/fleet/defaults", model=model)["items"]
    return found


def _as_said(chosen: dict[str, Any]) -> str:
    """A selection in the server's own words, so that the order in which it was typed does not matter."""
    if "ids" in chosen:
        raise UsageError(
            "invalid", "a fleet default is for all devices, a class, a site or labels, not for single devices"
        )
    found = chosen.get("filter", {})
    items = [f"{key}={found[key]}" for key in ("class", "site") if key in found]
    items += [f"label.{key}={value}" for key, value in sorted(found.get("labels", {}).items())]
    return ",".join(items) or "all"
