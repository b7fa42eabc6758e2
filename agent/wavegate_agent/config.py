"""The agent's settings and where its files lie, read once and passed on as frozen objects.

State directory, as in docs/operate.md:
    identity/{device.key, device.pem, ca.pem, root.json, agent.json}   written by enrolment
    tuf/   journal   assignment-<seq>.json   outbox.db   models/   agent.sock (status)   infer.sock (local API)
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from wavegate_agent.adapters.network.mqtt import Address
from wavegate_shared.errors import UsageError
from wavegate_shared.topics import DEVICE_ID, Topics

__all__ = ["Config", "Identity", "IdentityFiles", "address_of", "load_identity"]

_SOCKET_BYTES = 107
"""What Linux takes for the path of a unix socket, less the closing zero. Source: unix(7)."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What enrolment told this device (`agent.json`)."""

    device: str
    hardware_class: str
    site: str
    shard: int
    topic_prefix: str
    broker_host: str
    broker_port: int
    server_url: str
    bench: bool = False


@dataclass(frozen=True, slots=True)
class IdentityFiles:
    """Names of the identity files below one directory."""

    directory: Path

    @property
    def key(self) -> Path:
        """The device's private key, P-256, mode 0600."""
        return self.directory / "device.key"

    @property
    def certificate(self) -> Path:
        """The device's certificate."""
        return self.directory / "device.pem"

    @property
    def ca(self) -> Path:
        """The authority that signed it and the broker's."""
        return self.directory / "ca.pem"

    @property
    def root(self) -> Path:
        """The TUF root this device starts to trust from."""
        return self.directory / "root.json"

    @property
    def agent(self) -> Path:
        """The rest: see `Identity`."""
        return self.directory / "agent.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything an operator can set.

    Attributes:
        state_dir: see the module's docstring.
        unix_socket: the local API's socket; `<state>/infer.sock` when None.
        http_port: the local API on loopback TCP; None for none, 0 for any free port.
        window_s: length of a telemetry window.
        threads: threads of one inference.
        concurrency: inferences at the same time.
        memory_mb: limit of a worker's memory; None for none.
        models_memory_mb: what all models of the device together may take; None: what is free decides.
        candidate_nice: how far candidates step back behind live traffic; 0 lets a bench device measure at live priority.
        reserve_mb: disk space an install leaves free.
        crash_loop: crashes of the live worker within `crash_loop_s` that make the agent take another version.
    """

    state_dir: Path
    unix_socket: Path | None = None
    http_port: int | None = None
    window_s: float = 60.0
    threads: int = 1
    concurrency: int = 2
    memory_mb: int | None = None
    models_memory_mb: int | None = None
    candidate_nice: int = 19
    reserve_mb: int = 16
    crash_loop: int = 4
    crash_loop_s: float = 300.0
    log_json: bool = False

    def __post_init__(self) -> None:
        """Raises UsageError `setup` when a socket's path is longer than a unix socket's may be."""
        for path in (self.status_socket, self.infer_socket):
            size = len(str(path).encode())
            if size > _SOCKET_BYTES:
                raise UsageError(
                    "setup",
                    f"{path} is {size} bytes long and a unix socket takes {_SOCKET_BYTES}: choose a shorter path",
                )

    @property
    def identity(self) -> IdentityFiles:
        """Where the identity lies."""
        return IdentityFiles(self.state_dir / "identity")

    @property
    def status_socket(self) -> Path:
        """Where `wavegate-agent status` asks."""
        return self.state_dir / "agent.sock"

    @property
    def infer_socket(self) -> Path:
        """The local API's socket, of all models."""
        return self.unix_socket or self.state_dir / "infer.sock"


def load_identity(files: IdentityFiles) -> Identity:
    """What enrolment wrote.

    Raises:
        UsageError: `setup` when this device is not enrolled, or its files are damaged.
    """
    for path in (files.agent, files.key, files.certificate, files.ca, files.root):
        if not path.is_file():
            raise UsageError("setup", f"{path} is missing: enrol this device first (wavegate-agent enroll)")
    try:
        identity = msgspec.json.decode(files.agent.read_bytes(), type=Identity)
    except msgspec.DecodeError as error:
        raise UsageError("setup", f"{files.agent} is damaged ({error}): enrol this device again") from error
    if DEVICE_ID.fullmatch(identity.device) is None:
        raise UsageError("setup", f"{files.agent}: {identity.device!r} is not a device id")
    return identity


def address_of(identity: Identity, files: IdentityFiles) -> Address:
    """How to reach the broker as this device."""
    return Address(
        host=identity.broker_host,
        port=identity.broker_port,
        device=identity.device,
        topics=Topics(identity.topic_prefix),
        ca=files.ca,
        certificate=files.certificate,
        key=files.key,
    )
