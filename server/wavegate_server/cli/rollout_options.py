"""The options of `wavegate rollout create`: what a policy is made of on the command line."""

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Approve",
    "Baseline",
    "Block",
    "Canaries",
    "Deadline",
    "Denied",
    "Devices",
    "FewCanaries",
    "IdleAfter",
    "IdleWave",
    "IdleWaveOption",
    "LateJoiners",
    "LateJoinersOption",
    "Margin",
    "MaxFailures",
    "PolicyFile",
    "ProbationRequests",
    "ProbationTime",
    "Soak",
    "StartAt",
    "WatchFlag",
    "Waves",
]


class FewCanaries(StrEnum):
    """Who decides when there are fewer than 5 canaries or too short a baseline."""

    HUMAN = "human"
    WIDE = "wide"


class IdleWave(StrEnum):
    """What becomes of a wave in which devices had no live traffic."""

    PROMOTE = "promote"
    HOLD = "hold"
    HUMAN = "human"


class LateJoiners(StrEnum):
    """What devices get that come after the rollout."""

    FOLLOW = "follow"
    IGNORE = "ignore"


Devices = Annotated[
    str, typer.Option(help="all, ids (kiosk-1,kiosk-2), or a filter: class=edge-a,site=berlin,label.ring=early.")
]
Waves = Annotated[str | None, typer.Option(help="Waves in order, as canary=1,10%,rest.")]
Soak = Annotated[str | None, typer.Option(help="How long a wave is watched, as 1h.")]
Block = Annotated[str | None, typer.Option(help="Length of one block of evidence, as 15m.")]
Baseline = Annotated[str | None, typer.Option(help="How far back to compare: 24h, or a number of blocks.")]
Margin = Annotated[list[str] | None, typer.Option(help="How much worse is worse, as accuracy=0.5pt; may be repeated.")]
Canaries = Annotated[
    FewCanaries | None, typer.Option(help="With fewer than 5 canaries: wait for a human, or decide by a wide margin.")
]
ProbationTime = Annotated[str | None, typer.Option(help="How long a device proves a version, as 60s.")]
ProbationRequests = Annotated[int | None, typer.Option(help="Live requests it must serve meanwhile.", min=0)]
IdleAfter = Annotated[str | None, typer.Option(help="Own requests after so long without live ones: 2m, or off.")]
IdleWaveOption = Annotated[
    IdleWave | None, typer.Option(help="Devices had no live traffic. Default: promote where some had, else a human.")
]
WatchAfter = Annotated[
    str | None,
    typer.Option(help="How long devices that were idle are judged on their first live requests, as 24h; 0s: not."),
]
LateJoinersOption = Annotated[
    LateJoiners | None,
    typer.Option(help="Whether devices that come later get the version, too: it becomes their fleet default."),
]
Deadline = Annotated[str | None, typer.Option(help="Time for a device to accept, and again to report, as 1h.")]
MaxFailures = Annotated[int | None, typer.Option(help="Devices of a wave that may fail.", min=0)]
Approve = Annotated[bool, typer.Option("--approve", help="Do not start before `rollout approve`.")]
StartAt = Annotated[datetime | None, typer.Option(help="Not before this time (UTC).")]
PolicyFile = Annotated[
    Path | None,
    typer.Option("--policy", help="JSON file with any policy field; options win.", exists=True, dir_okay=False),
]
Denied = Annotated[bool, typer.Option("--allow-denied", help="Also a version that a gate rolled back before.")]
Downgrade = Annotated[
    str | None,
    typer.Option(
        metavar="<reason>", help="Also where devices run a newer version: take them back to this one, for this reason."
    ),
]
WatchFlag = Annotated[bool, typer.Option("--watch", help="Stay and watch it; exit code 3 when it is rolled back.")]
