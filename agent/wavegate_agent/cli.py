"""The `wavegate-agent` command.

Exit codes: 0 done, 1 failed (the message and its code say why), 2 wrong usage, 3 the agent runs but nothing serves (`status`).
Plain argparse: the device carries no more than it needs. Each command imports only its own part.
"""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from wavegate_agent.logs import configure
from wavegate_shared import __version__
from wavegate_shared.errors import WavegateError

__all__ = ["build_parser", "main"]

_STATE = Path("/var/lib/wavegate-agent")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = build_parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except WavegateError as error:
        if getattr(options, "json", False):
            print(json.dumps({"error": error.code, "detail": error.detail}))
        print(f"wavegate-agent: {error}", file=sys.stderr)
        return 1


def build_parser() -> argparse.ArgumentParser:
    """The command line, also for the documentation."""
    parser = argparse.ArgumentParser(
        prog="wavegate-agent",
        description="The device side of Wavegate.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 nothing serves (status).",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_enroll(commands.add_parser("enroll", help="make this device a member of a fleet, with a one-time token"))
    _add_renew(commands.add_parser("renew", help="renew this device's certificate over HTTPS, also after its end"))
    _add_run(commands.add_parser("run", help="serve models and follow the fleet's assignments, until SIGTERM"))
    _add_status(commands.add_parser("status", help="what the running agent does"))
    return parser


def _add_enroll(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--token", required=True, help="from `wavegate device token`; - reads it from standard input")
    parser.add_argument("--server", required=True, metavar="URL", help="address of the server, as https://host:8443")
    _add_state(parser)
    parser.add_argument("--replace", action="store_true", help="give up an identity this device has already")
    parser.add_argument("--json", action="store_true", help="answer as JSON")
    parser.set_defaults(command=_enroll)


def _add_renew(parser: argparse.ArgumentParser) -> None:
    _add_state(parser)
    parser.add_argument("--json", action="store_true", help="answer as JSON")
    parser.set_defaults(command=_renew)


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_state(parser)
    parser.add_argument("--unix-socket", type=Path, metavar="PATH", help="local API socket (default: DIR/infer.sock)")
    parser.add_argument(
        "--http-port", type=_port, metavar="N", help="local API on 127.0.0.1 as well; 0 takes a free port"
    )
    parser.add_argument(
        "--window-s", type=_seconds, default=60.0, metavar="S", help="length of a telemetry window (60)"
    )
    parser.add_argument("--threads", type=_count, default=1, metavar="N", help="threads of one inference (1)")
    parser.add_argument("--concurrency", type=_count, default=2, metavar="N", help="inferences at the same time (2)")
    parser.add_argument("--memory-mb", type=_count, metavar="N", help="limit of a worker's memory")
    parser.add_argument(
        "--models-memory-mb", type=_count, metavar="N", help="what all models together may take (default: what is free)"
    )
    parser.add_argument(
        "--candidate-nice",
        type=int,
        choices=range(20),
        default=19,
        metavar="N",
        help="how far candidates step back behind live traffic, 0 to 19 (19)",
    )
    parser.add_argument(
        "--reserve-mb", type=_count, default=16, metavar="N", help="disk space an install leaves free (16)"
    )
    parser.add_argument("--log-json", action="store_true", help="one JSON object a log line")
    parser.add_argument("--verbose", action="store_true", help="log more")
    parser.set_defaults(command=_run)


def _add_status(parser: argparse.ArgumentParser) -> None:
    _add_state(parser)
    parser.add_argument("--json", action="store_true", help="answer as JSON")
    parser.set_defaults(command=_status)


def _add_state(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state", type=Path, default=_STATE, metavar="DIR", help=f"state directory ({_STATE})")


def _enroll(options: argparse.Namespace) -> int:
    from wavegate_agent.adapters.network.enrol import enrol

    configure(as_json=False, verbose=False)
    token = sys.stdin.readline().strip() if options.token == "-" else options.token  # noqa: S105 - not a password
    answer = enrol(token, options.server, options.state / "identity", replace=options.replace)
    if options.json:
        print(json.dumps({"device": answer.device, "site": answer.site, "hardware_class": answer.hardware_class}))
    else:
        print(f"{answer.device} ({answer.hardware_class}, {answer.site}) is enrolled; broker {answer.broker_host}")
    return 0


def _renew(options: argparse.Namespace) -> int:
    from wavegate_agent.adapters.network.renew import renew
    from wavegate_agent.config import IdentityFiles, load_identity

    configure(as_json=False, verbose=False)
    files = IdentityFiles(options.state / "identity")
    identity = load_identity(files)
    term = renew(files.directory, identity.device, identity.server_url)
    if options.json:
        print(json.dumps({"device": identity.device, "certificate_ends": term.ends.isoformat()}))
    else:
        print(f"{identity.device} has a certificate until {term.ends:%Y-%m-%d %H:%M} UTC")
    return 0


def _run(options: argparse.Namespace) -> int:
    from wavegate_agent.adapters.device.malloc import keep_small
    from wavegate_agent.config import Config
    from wavegate_agent.control.agent import Agent

    keep_small()

    configure(as_json=options.log_json, verbose=options.verbose)
    agent = Agent(
        Config(
            state_dir=options.state,
            unix_socket=options.unix_socket,
            http_port=options.http_port,
            window_s=options.window_s,
            threads=options.threads,
            concurrency=options.concurrency,
            memory_mb=options.memory_mb,
            models_memory_mb=options.models_memory_mb,
            candidate_nice=options.candidate_nice,
            reserve_mb=options.reserve_mb,
            log_json=options.log_json,
        )
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: agent.stop())
    agent.run()
    return 0


def _status(options: argparse.Namespace) -> int:
    from wavegate_agent.adapters.device.status_socket import read_status

    status = read_status(options.state / "agent.sock")
    slots = status.get("slots")
    slots = slots if isinstance(slots, dict) else {}
    if options.json:
        print(json.dumps(status))
    else:
        print(f"{status.get('device')}: {'connected' if status.get('connected') else 'not connected'}")
        for name, slot in slots.items():
            print(_sentence(name, slot))
        if not slots:
            print("  nothing installed: no model was assigned yet")
    return 0 if any(slot.get("serving") for slot in slots.values()) else 3


def _sentence(name: str, slot: dict[str, object]) -> str:
    if not slot.get("version"):
        text = f"  {name}: nothing installed, {slot.get('state')}"
    else:
        text = f"  {name}: {slot.get('model')} {slot.get('version')}, {slot.get('state')}"
    if slot.get("state") == "probation" and slot.get("detail"):
        text += f"; {slot.get('detail')}"
    elif slot.get("code"):
        text += f"; version {slot.get('assigned')} {slot.get('outcome')}: {slot.get('code')} ({slot.get('detail')})"
    return text


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number < 65536:
        raise ValueError(text)
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0.1 <= number <= 86400:
        raise ValueError(text)
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    sys.exit(main())
