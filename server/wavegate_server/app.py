"""The server put together: one process that is API, dashboard, rollout engine, ingest, delivery, and the broker's parent.

Order of start: data directory and keys, database, broker, MQTT clients, ingest and engine, then HTTPS. The end is the reverse,
and every part may also simply be killed: nothing that was acknowledged lives in memory only.
"""

import json
import logging
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
import uvicorn
from sqlalchemy import Engine as Database
from sqlmodel import Session

from wavegate_server.adapters import clock
from wavegate_server.adapters.broker.clients import Downlink
from wavegate_server.adapters.broker.process import RunningBroker, start_broker
from wavegate_server.adapters.database.connection import open_engine, write
from wavegate_server.adapters.files.objects import Objects
from wavegate_server.adapters.store import tokens
from wavegate_server.adapters.store.artifacts import ArtifactIndex
from wavegate_server.adapters.store.assignments import AssignmentWriter
from wavegate_server.adapters.store.device_messages import DeviceMessageStore, Verified
from wavegate_server.api import create_api
from wavegate_server.api.context import Context
from wavegate_server.config import Settings
from wavegate_server.migrations import upgrade
from wavegate_server.services import first_start
from wavegate_server.services.bench.rounds import BenchRounds
from wavegate_server.services.compress_runner import CompressRunner
from wavegate_server.services.delivery import Delivery
from wavegate_server.services.engine import Engine
from wavegate_server.services.ingest.service import Ingest
from wavegate_server.services.late_joiners import LateJoiners
from wavegate_server.services.requests import DeviceRequests
from wavegate_server.web import add_web
from wavegate_shared.errors import UsageError
from wavegate_shared.wire import Hello, Report, SignedReport, StateEvent

__all__ = ["Address", "bind_listener", "run_server"]

_CONNECT_TIMEOUT_S = 30.0
_SHUTDOWN_S = 3

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Address:
    """Where the running server is. `login_url` signs one browser in, once."""

    url: str
    login_url: str
    broker: str
    broker_port: int


def run_server(settings: Settings, *, ready: Callable[[Address], None]) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        UsageError: `setup` or `key_missing`, with what to do.
    """
    now = clock.now()
    first_start.initialise(settings, now)
    database = open_engine(settings.db_url)
    upgrade(database)
    with ExitStack() as stack:
        stack.callback(database.dispose)
        listener = stack.enter_context(bind_listener(settings))
        trust = first_start.open_trust(settings)
        broker = start_broker(settings, trust.authority)
        stack.callback(broker.stop)
        settings = settings.model_copy(update={"port": listener.getsockname()[1], "broker_port": broker.port})
        context = _context(settings, database, trust, broker)
        tokens.ensure_admin_token(database, settings, now)
        https = _https_config(context)
        _start_loops(stack, context, trust, broker, lambda: reload_certificate(https))
        address = _address(context, broker)
        ready_file = settings.ready_file
        stack.callback(ready_file.unlink, missing_ok=True)
        _Https(https, lambda: _announce(ready_file, address, ready)).run(sockets=[listener])


def bind_listener(settings: Settings) -> socket.socket:
    """The HTTPS listener's socket, bound and not yet listening.

    The protocol is named: asyncio switches Nagle's algorithm off only on sockets that say TCP, and with it each answer on a
    kept connection waits 40 ms for the client's delayed acknowledgement.

    Raises:
        UsageError: `setup`, when the address is in use or not this machine's.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        where = f"{settings.host}:{settings.port}"
        raise UsageError("setup", f"cannot listen on {where}: {error.strerror}; set WAVEGATE_PORT") from error
    return listener


def _context(settings: Settings, database: Database, trust: first_start.Trust, broker: RunningBroker) -> Context:
    return Context(
        settings=settings,
        engine=database,
        objects=Objects(settings.objects_dir),
        tuf_repo=trust.tuf_repo,
        director=trust.director,
        authority=trust.authority,
        keystore=trust.keystore,
        clock=clock.now,
        checks={"broker": lambda: "" if broker.kind == "external" or broker.pid else "the broker is not running"},
    )


def _start_loops(
    stack: ExitStack, context: Context, trust: first_start.Trust, broker: RunningBroker, renewed: Callable[[], None]
) -> None:
    settings, database = context.settings, context.engine
    downlink = Downlink(broker.access("publisher"))
    downlink.start()
    stack.callback(downlink.close)
    lookup = ArtifactIndex(database)
    delivery = Delivery(
        context.objects, trust.tuf_repo, trust.director, downlink.publish, lookup, settings.topics, now=context.clock
    )
    listed = trust.authority.listed_serials()

    def renew(now: datetime) -> None:
        nonlocal listed
        before, listed = listed, trust.authority.listed_serials()
        names = first_start.renew_services(trust, settings, now)
        if names:
            _LOG.warning("certificates_renewed names=%s", ",".join(names))
        if "broker" in names or listed != before:
            broker.certificate_changed()
        if "server" in names:
            renewed()

    bench_rounds = BenchRounds(
        database, trust.tuf_repo, AssignmentWriter(trust.director, trust.tuf_repo, settings.topics)
    )
    late_joiners = LateJoiners(database)
    engine = Engine(
        database,
        trust.director,
        trust.tuf_repo,
        downlink,
        settings,
        hooks=(lambda now: first_start.maintain(trust, database, now), renew),
        rounds=lambda now: bench_rounds.tick(now) + late_joiners.tick(now),
    )
    handlers = _Handlers(DeviceMessageStore(settings.topics))
    requests = DeviceRequests(delivery, database, trust.authority, downlink.publish, settings.topics, now=context.clock)
    ingest = Ingest(database, settings, downlink, handlers, requests, on_revoked=broker.deny)
    ingest.start(broker.access("ingest-0"), persistent=broker.keeps_sessions)
    stack.callback(ingest.close)
    engine.start()
    stack.callback(engine.stop)
    compressor = CompressRunner(database, context.objects, settings.compress_dir, now=context.clock)
    compressor.start()
    stack.callback(compressor.stop)
    if not ingest.wait_connected(_CONNECT_TIMEOUT_S):
        raise UsageError("setup", f"the {broker.kind} broker at {broker.host}:{broker.port} does not let the server in")


class _Handlers:
    """Hands verified device messages to the fleet's books."""

    def __init__(self, store: DeviceMessageStore) -> None:
        self._store = store

    def apply(
        self, session: Session, device_id: str, message: Hello | StateEvent | SignedReport, now: datetime
    ) -> None:
        """Write one message; ingest has checked a report's signature before."""
        if isinstance(message, SignedReport):
            self._store.apply_up(session, device_id, _verified(message), now)
        else:
            self._store.apply_up(session, device_id, message, now)


class _Envelope(msgspec.Struct):
    payload: bytes


def _verified(message: SignedReport) -> Verified:
    envelope = bytes(message.envelope)
    payload = msgspec.json.decode(envelope, type=_Envelope).payload
    return Verified(msgspec.json.decode(payload, type=Report), envelope)


def _address(context: Context, broker: RunningBroker) -> Address:
    settings = context.settings
    url = f"https://{settings.public_name}:{settings.port}"
    admin = settings.admin_token_file.read_text(encoding="utf-8").strip()
    with write(context.engine) as session:
        principal = tokens.check_token(session, admin, context.clock())
        key = tokens.create_login_key(session, principal, context.clock()) if principal else ""
    return Address(url, f"{url}/login?key={key}", broker.kind, broker.port)


def reload_certificate(config: uvicorn.Config) -> None:
    """Serve the certificate on disk from the next connection on; connections that are open keep theirs."""
    if config.ssl is not None and config.ssl_certfile is not None:
        config.ssl.load_cert_chain(config.ssl_certfile, config.ssl_keyfile)


def _https_config(context: Context) -> uvicorn.Config:
    app = create_api(context)
    add_web(app, context)
    files = context.authority.service("server")
    return uvicorn.Config(
        app,
        ssl_certfile=str(files.certificate),
        ssl_keyfile=str(files.key),
        ssl_version=ssl.PROTOCOL_TLS_SERVER,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_SHUTDOWN_S,
        server_header=False,
    )


class _Https(uvicorn.Server):
    """Uvicorn, which says when it answers."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            self._tell()


def _announce(ready_file: Path, address: Address, ready: Callable[[Address], None]) -> None:
    fresh = ready_file.with_suffix(".tmp")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump({"pid": os.getpid(), **{name: getattr(address, name) for name in Address.__slots__}}, file)
    fresh.replace(ready_file)
    _LOG.info("serve.ready url=%s broker=%s broker_port=%d", address.url, address.broker, address.broker_port)
    ready(address)
