"""The device round of `wavegate compress BUNDLE --for CLASS`: asked for over the API, followed until it ends."""

import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

import typer

from wavegate_server.adapters.store.bench_rounds import how_to_enrol
from wavegate_server.cli.client import connect
from wavegate_server.cli.compress.import_result import is_set_up
from wavegate_server.cli.upload import zipped
from wavegate_server.client import Client, at
from wavegate_server.compress.search.device_round import DeviceFigures, Tell, read_round
from wavegate_server.core.advice import Refused
from wavegate_shared.errors import TransferError, UsageError

__all__ = ["ApiRound"]

_POLL_S = 0.5
_SLACK_S = 60.0


class ApiRound:
    """Asks the server this command knows of.

    Args:
        context: of the command: server, token, authority.
        hardware_class: where to measure.
        timeout_s: for one candidate; wait_s: for a device that is online and at rest.
    """

    def __init__(
        self, context: typer.Context, hardware_class: str, *, timeout_s: float = 300.0, wait_s: float = 60.0
    ) -> None:
        self._context, self._class = context, hardware_class
        self._timeout_s, self._wait_s = timeout_s, wait_s

    def measure(self, original: Path, candidates: Mapping[str, Path], tell: Tell) -> DeviceFigures:
        """See `DeviceRound`. A Ctrl-C cancels the round.

        Raises:
            UsageError: no server, or it refused: the detail says what to do.
            TransferError: it does not answer.
        """
        if not is_set_up(self._context):
            raise UsageError("setup", f"no server is set up for this command; with one, {how_to_enrol(self._class)}")
        try:
            with connect(self._context) as client:
                return self._measure(client, original, candidates, tell)
        except Refused as refused:
            raise UsageError("conflict", str(refused.problem["detail"])) from refused

    def _measure(self, client: Client, original: Path, candidates: Mapping[str, Path], tell: Tell) -> DeviceFigures:
        tell("sending candidates to the server", "")
        view = self._ask(client, original, candidates)
        path = at("bench-rounds", view["id"])
        ends = time.monotonic() + self._wait_s + self._timeout_s * len(candidates) + _SLACK_S
        try:
            while view["finished_at"] is None:
                if time.monotonic() > ends:
                    raise TransferError("not_connected", f"bench round {view['id']} did not end in time")
                _say(view, tell)
                time.sleep(_POLL_S)
                view = client.get(path)
        finally:
            if view["finished_at"] is None:  # interrupted, late or cut off
                with suppress(Refused, TransferError):
                    client.change("POST", f"{path}/cancel", path)
        return read_round(view)

    def _ask(self, client: Client, original: Path, candidates: Mapping[str, Path]) -> dict[str, Any]:
        fields = {"class": self._class, "timeout_s": str(self._timeout_s), "wait_s": str(self._wait_s)}
        with ExitStack() as stack:

            def opened(path: Path) -> BinaryIO:
                return stack.enter_context(stack.enter_context(zipped(path)).open("rb"))

            files = [("original", "original.zip", opened(original))]
            files += [("candidates", f"{name}.zip", opened(path)) for name, path in candidates.items()]
            return client.send("/bench-rounds", files, fields)


def _say(view: Mapping[str, Any], tell: Tell) -> None:
    sent = next((each["name"] for each in view["candidates"] if each["state"] == "sent"), "")
    tell(f"measuring on {view['device']}" if view["device"] else "waiting for a bench device", sent)
