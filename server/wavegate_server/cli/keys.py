"""`wavegate keys ...`: signing keys and the signed release list, on the machine that holds them.

These commands work on the data directory (WAVEGATE_DATA_DIR), not through the server: a key that should be offline must
not be reachable by the web process. A running server sees the results at once, except for its own director and time keys.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from wavegate_server.adapters import clock
from wavegate_server.adapters.trust.image_repository import ImageRepository
from wavegate_server.adapters.trust.key_rotation import renew_root, rotate
from wavegate_server.adapters.trust.keystore import KeyPlace, KeyStore
from wavegate_server.cli.output import JsonFlag, lines, print_json, table
from wavegate_server.config import Settings
from wavegate_server.services.first_start import initialise

__all__ = ["app"]

app = typer.Typer(help="Signing keys and the signed release list.", no_args_is_help=True)

Role = Annotated[str, typer.Argument(help="root-1, root-2, root-3, targets, release, release/MODEL, snapshot, ...")]
_MEANING = {
    KeyPlace.ONLINE: "on this machine",
    KeyPlace.OFFLINE: "not here",
    KeyPlace.EXTERNAL: "in a device or service",
}


@app.command()
def init(as_json: JsonFlag = False) -> None:
    """Make the keys (root 2 of 3, targets, release, snapshot, timestamp, director, time), the release list and the CA.

    A repeated call changes nothing. Afterwards move the root and targets keys away: wavegate keys move root-1 /media/stick

    Example: wavegate keys init
    """
    settings = Settings()
    initialise(settings, clock.now())
    _show_status(settings, as_json=as_json)


@app.command()
def status(as_json: JsonFlag = False) -> None:
    """Which keys there are, which of them are on this machine, and until when the release list is valid.

    Example: wavegate keys status
    """
    _show_status(Settings(), as_json=as_json)


app.command("list", hidden=True)(status)


@app.command()
def delegate(
    model: Annotated[str, typer.Argument(help="Model whose versions the role may sign.")],
    own_key: Annotated[bool, typer.Option("--own-key", help="Give the model a release key of its own.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Delegate a model to its release role; `publish` does this by itself with the shared release key.

    Example: wavegate keys delegate address-match --own-key
    """
    keys, repository = _open()
    if own_key:
        keys.create(f"release/{model}")
    repository.ensure_model(model, clock.now())
    key = keys.public(f"release/{model}")
    _done({"role": f"release/{model}", "keyid": key.keyid}, f"release/{model} signs with {key.keyid[:12]}", as_json)


@app.command()
def bench(
    hardware_class: Annotated[str, typer.Argument(help="Hardware class whose benching devices take its candidates.")],
    as_json: JsonFlag = False,
) -> None:
    """Make the role that signs compression candidates for one hardware class; they never go live.

    Example: wavegate keys bench edge-a
    """
    keys, repository = _open()
    repository.ensure_bench(hardware_class, clock.now())
    key = keys.public(f"bench/{hardware_class}")
    _done(
        {"role": f"bench/{hardware_class}", "keyid": key.keyid},
        f"bench/{hardware_class} signs with {key.keyid[:12]}",
        as_json,
    )


@app.command()
def resign(
    roles: Annotated[list[str] | None, typer.Argument(help="Roles; all whose keys are here when left out.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Renew the validity of root, targets and release roles before they expire.

    Example: wavegate keys resign
    """
    keys, repository = _open()
    now = clock.now()
    wanted = roles or _signable(keys, repository)
    if "root" in wanted:
        renew_root(repository, now)
    others = [role for role in wanted if role not in ("root", "snapshot", "timestamp")]
    repository.resign(others, now)  # snapshot and timestamp are signed with every commit
    ends = {role: end.isoformat() for role, end in repository.expiries().items() if role in wanted}
    _done({"expires": ends}, "\n".join(f"{role} is valid until {end}" for role, end in ends.items()), as_json)


@app.command("rotate")
def rotate_key(role: Role, as_json: JsonFlag = False) -> None:
    """Replace a role's key and destroy the old one. Devices follow by themselves, also after weeks of sleep.

    For `director` and `time` restart the server afterwards.

    Example: wavegate keys rotate director
    """
    _, repository = _open()
    key = rotate(repository, role, clock.now())
    _done({"role": role, "keyid": key.keyid}, f"{role} signs with {key.keyid[:12]} from now on", as_json)


@app.command()
def move(
    role: Role,
    directory: Annotated[Path, typer.Argument(help="Where the key goes, as a stick or an encrypted disk.")],
    as_json: JsonFlag = False,
) -> None:
    """Move a key file off this machine's key directory; it is used from there while the medium is connected.

    Example: wavegate keys move root-1 /media/stick
    """
    keys, _ = _open()
    place = keys.move(role, directory)
    _done({"role": role, "uri": f"file:{place}"}, f"the key of {role} is now {place}", as_json)


@app.command()
def use(
    role: Role,
    uri: Annotated[str, typer.Argument(help="Signer URI: file:PATH, hsm:..., awskms:..., gcpkms:..., azurekms:...")],
    as_json: JsonFlag = False,
) -> None:
    """Tell where a role's key is now; it must be the same key.

    Example: wavegate keys use release awskms:alias/wavegate-release
    """
    keys, _ = _open()
    keys.use(role, uri)
    _done({"role": role, "uri": uri}, f"{role} signs through {uri}", as_json)


def _open() -> tuple[KeyStore, ImageRepository]:
    settings = Settings()
    keys = KeyStore(settings.keys_dir)
    repository = ImageRepository(settings.tuf_dir, keys)
    repository.root_bytes()  # says what to do when there is nothing yet
    return keys, repository


def _signable(keys: KeyStore, repository: ImageRepository) -> list[str]:
    here = {status.role for status in keys.status() if status.place is not KeyPlace.OFFLINE}
    roles = [role for role in repository.versions() if role == "targets" or "/" in role]
    usable = [
        role
        for role in roles
        if role in here or (role.startswith("release/") and not keys.has_own(role) and "release" in here)
    ]
    root = ["root"] if len([role for role in here if role.startswith("root-")]) >= 2 else []
    return [*root, *usable]


def _show_status(settings: Settings, *, as_json: bool) -> None:
    keys = KeyStore(settings.keys_dir)
    repository = ImageRepository(settings.tuf_dir, keys)
    statuses = keys.status()
    ends = repository.expiries() if repository.store.ready else {}
    if as_json:
        rows = [
            {"role": s.role, "keyid": s.keyid, "scheme": s.scheme, "uri": s.uri, "place": s.place} for s in statuses
        ]
        print_json({"keys": rows, "expires": {role: end.isoformat() for role, end in ends.items()}})
        return
    empty = "No keys yet; run `wavegate keys init`."
    table(("role", "key", "scheme", "place", "signer"), [_row(s) for s in statuses], empty=empty)
    versions = repository.versions() if ends else {}
    rows_of_metadata = [(role, versions.get(role), f"{end:%Y-%m-%d %H:%M} UTC") for role, end in ends.items()]
    table(("metadata", "version#", "valid until"), rows_of_metadata, empty="No release list yet.")


def _row(status: Any) -> tuple[str, str, str, str, str]:
    return status.role, status.keyid[:12], status.scheme, _MEANING[status.place], status.uri


def _done(result: dict[str, Any], sentence: str, as_json: bool) -> None:
    if as_json:
        print_json(result)
    else:
        lines(*sentence.splitlines())
