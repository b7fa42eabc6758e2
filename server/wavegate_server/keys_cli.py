"""`wavegate keys ...`. (body follows)"""

import typer

__all__ = ["app"]

app = typer.Typer(help="Signing keys and the signed release list.", no_args_is_help=True)
