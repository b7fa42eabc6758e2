"""`wavegate model ...`: import a bundle, publish, take back, alias, look at."""

from typing import Annotated, Any

import typer

from wavegate_server.cli.client import connect
from wavegate_server.cli.model_export import export_model
from wavegate_server.cli.model_import import import_model
from wavegate_server.cli.model_inspect import inspect
from wavegate_server.cli.output import JsonFlag, figure, lines, megabytes, print_json, table
from wavegate_server.client import at

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.", show_default=False)]
Number = Annotated[int, typer.Argument(metavar="VERSION", help="The version's number.", min=1, show_default=False)]

app.command()(inspect)
app.command("import")(import_model)
app.command("export")(export_model)


@app.command()
def publish(context: typer.Context, model: ModelName, version: Number, as_json: JsonFlag = False) -> None:
    """Sign a version into the release list, so that rollouts can offer it. Repeating it changes nothing.

    Example: wavegate model publish address-match 2
    """
    with connect(context) as client:
        answer = client.post(at("models", model, "versions", version, "publish"))
    if as_json:
        print_json(answer)
    else:
        lines(f"{model} {version} is published.")


@app.command()
def revoke(
    context: typer.Context,
    model: ModelName,
    version: Number,
    reason: Annotated[str, typer.Option(help="Why, for the audit log.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Take a version off the release list: no device installs it any more. Roll devices that run it to another one.

    Example: wavegate model revoke address-match 3 --reason "trained on wrong labels"
    """
    with connect(context) as client:
        answer = client.post(at("models", model, "versions", version, "revoke"), {"reason": reason})
    if as_json:
        print_json(answer)
    else:
        lines(f"{model} {version} is revoked; {answer['devices']} devices still run it.")


@app.command()
def alias(
    context: typer.Context,
    model: ModelName,
    name: Annotated[str, typer.Argument(metavar="ALIAS", help="`champion` or `challenger`.", show_default=False)],
    version: Annotated[
        int | None, typer.Argument(metavar="[VERSION]", help="The version it names; left out: none.", min=1)
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Point `champion` (in charge) or `challenger` (on trial) at a published version.

    Example: wavegate model alias address-match champion 2
    """
    with connect(context) as client:
        answer = client.change("PUT", at("models", model, "aliases", name), at("models", model), {"version": version})
    if as_json:
        print_json(answer)
    else:
        lines(f"{name} of {model} is {'nothing' if version is None else version}.")


@app.command("list")
def list_models(context: typer.Context, as_json: JsonFlag = False) -> None:
    """List models with their newest versions.

    Example: wavegate model list
    """
    with connect(context) as client:
        models = client.pages("/models")
    if as_json:
        print_json({"items": models})
        return
    table(
        ["model", "task", "newest#", "state", "champion#", "challenger#", "versions#", "devices#"],
        [
            (
                m["name"],
                m["task"],
                new["number"],
                new["state"],
                m["champion"],
                m["challenger"],
                m["versions"],
                m["devices"],
            )
            for m in models
            for new in [m["newest"] or {"number": None, "state": None}]
        ],
        empty="No models yet: wavegate model import PATH",
    )


@app.command()
def show(
    context: typer.Context,
    model: ModelName,
    version: Annotated[
        int | None, typer.Argument(metavar="[VERSION]", help="One version with its before/after table.", min=1)
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show a model's versions, or one version with the before/after table it was signed with.

    Example: wavegate model show address-match 2
    """
    with connect(context) as client:
        if version is not None:
            one = client.get(at("models", model, "versions", version))
            print_json(one) if as_json else _show_version(one)
            return
        head = client.get(at("models", model))
        versions = client.pages(at("models", model, "versions"))
    if as_json:
        print_json({**head, "items": versions})
        return
    lines(f"{head['name']}: {head['description'] or head['task']}")
    table(
        ["version#", "state", "recipe", "size#", "metric", "value#", "devices#", "note"],
        [
            (
                v["number"],
                v["state"],
                v["recipe"],
                megabytes(v["size_bytes"]),
                v["metric"]["name"],
                figure(v["metric_value"], v["metric"]["unit"]),
                v["devices"],
                _note(head, v),
            )
            for v in versions
        ],
        empty="No versions yet.",
    )


def _show_version(version: dict[str, Any]) -> None:
    metric = version["metric"]
    lines(
        f"{version['model']} {version['number']}: {version['state']}, {version['recipe']}, {megabytes(version['size_bytes'])}",
        f"{metric['name']} {figure(version['metric_value'], metric['unit'])} over {version['golden_samples']} golden samples,"
        f" limit {figure(version['golden_limit'], metric['unit'])}; {version['devices']} devices run it",
    )
    table(
        ["", "before#", "after#"],
        [
            (row["name"], figure(row["before"], row["unit"]), figure(row["after"], row["unit"]))
            for row in version["comparison"]
        ],
        empty="It was imported as it is: there is no before/after table.",
    )
    table(
        ["file", "role", "size#", "sha256"],
        [(a["name"], a["role"], megabytes(a["size_bytes"]), a["sha256"][:16]) for a in version["artifacts"]],
        empty="No files.",
    )


def _note(model: dict[str, Any], version: dict[str, Any]) -> str:
    names = [name for name in ("champion", "challenger") if model[name] == version["number"]]
    return ", ".join([*names, "denied by a gate"] if version["denied"] else names)
