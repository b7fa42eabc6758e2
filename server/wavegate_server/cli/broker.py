"""`wavegate broker ...`: the configuration of a Mosquitto that runs on its own, the same as the supervised one's."""

from pathlib import Path
from typing import Annotated

import typer

from wavegate_server.adapters import clock
from wavegate_server.adapters.broker.mosquitto import MAX_QUEUED, MosquittoSettings, write_files
from wavegate_server.adapters.broker.process import read_revoked
from wavegate_server.adapters.trust.authority import Authority
from wavegate_server.cli.output import JsonFlag, lines, print_json
from wavegate_server.config import Settings
from wavegate_shared.errors import UsageError

__all__ = ["app"]

app = typer.Typer(help="The MQTT broker's configuration.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The MQTT broker's configuration."""


@app.command()
def config(
    out: Annotated[Path, typer.Option(help="Directory to write mosquitto.conf and mosquitto.acl to.", file_okay=False)],
    host: Annotated[str, typer.Option(help="Address the broker listens on.")] = "0.0.0.0",  # noqa: S104  # its purpose
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port the broker listens on.")] = 8883,
    max_queued: Annotated[
        int, typer.Option(min=1, help="Messages kept for a client that is slow or away; a chunk has up to 120 KiB.")
    ] = MAX_QUEUED,
    crl: Annotated[
        bool,
        typer.Option(help="Check the revocation list. It ends after 30 days: then NO device gets in. Renew it daily."),
    ] = True,
    as_json: JsonFlag = False,
) -> None:
    """Write Mosquitto's configuration: mutual TLS, one identity per certificate, and an access list per device.

    Uses the certificates in the data directory (WAVEGATE_DATA_DIR). Run it again and reload Mosquitto (SIGHUP) after a
    device was revoked, and daily for the revocation list. Then start the server with WAVEGATE_BROKER=external.

    Example: wavegate broker config --out /etc/mosquitto/conf.d
    """
    settings = Settings()
    authority = Authority(settings.ca_dir)
    files = authority.service("broker")
    revoked = read_revoked(settings.broker_dir)
    if crl and not authority.crl_path.is_file():
        raise UsageError("setup", f"there is no revocation list at {authority.crl_path}; start `wavegate serve` once")
    if crl and authority.crl_due(clock.now()):
        authority.crl(sorted(serial for serial in revoked.values() if serial), clock.now())
    mosquitto = MosquittoSettings(
        directory=out.resolve(),
        host=host,
        port=port,
        ca=files.ca,
        certificate=files.certificate,
        key=files.key,
        topics=settings.topics,
        crl=authority.crl_path if crl else None,
        max_queued=max_queued,
    )
    written = write_files(mosquitto, revoked)
    if as_json:
        print_json(
            {"configuration": str(written), "access_list": str(mosquitto.access_file), "denied": sorted(revoked)}
        )
        return
    lines(
        f"configuration: {written}",
        f"access list:   {mosquitto.access_file} ({len(revoked)} revoked devices)",
        f"start it with: mosquitto -c {written}",
    )
