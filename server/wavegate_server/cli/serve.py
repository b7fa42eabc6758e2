"""`wavegate serve`: the server in the foreground."""

import logging
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from wavegate_server.cli.output import lines

__all__ = ["serve"]


def serve(
    data_dir: Annotated[Path | None, typer.Option(help="Where everything is kept; else WAVEGATE_DATA_DIR.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; loopback unless told otherwise.")] = None,
    port: Annotated[int | None, typer.Option(help="HTTPS port; 0 takes a free one.", min=0, max=65535)] = None,
    public_name: Annotated[str | None, typer.Option(help="Name or address devices and browsers use.")] = None,
    broker: Annotated[str | None, typer.Option(help="auto, embedded, mosquitto or external.")] = None,
    broker_host: Annotated[str | None, typer.Option(help="Address the broker listens on.")] = None,
    broker_port: Annotated[int | None, typer.Option(help="MQTT port; 0 takes a free one.", min=0, max=65535)] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log each message.")] = False,
) -> None:
    """Run the server: API, dashboard, broker, rollouts. The first start makes keys, certificates and the database.

    Every option can also be set in the environment, as WAVEGATE_PORT. Ctrl-C or SIGTERM ends it.

    Example: wavegate serve --data-dir ./wavegate-data --host 0.0.0.0 --public-name models.example.org
    """
    from wavegate_server.app import Address, run_server
    from wavegate_server.config import Settings

    given: dict[str, Any] = {
        "data_dir": data_dir,
        "host": host,
        "port": port,
        "public_name": public_name,
        "broker": broker,
        "broker_host": broker_host,
        "broker_port": broker_port,
    }
    settings = Settings(**{name: value for name, value in given.items() if value is not None})
    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")

    def ready(address: Address) -> None:
        lines(
            f"Wavegate serves at {address.url} (broker: {address.broker}, port {address.broker_port})",
            f"dashboard, good for one sign-in: {address.login_url}",
            f"administrator's token: {settings.admin_token_file}",
            f"for other commands on this machine: export WAVEGATE_DATA_DIR={shlex.quote(str(settings.data_dir.resolve()))}",
        )

    run_server(settings, ready=ready)
