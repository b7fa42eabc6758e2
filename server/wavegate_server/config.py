"""The server's settings, read once from the environment (`WAVEGATE_...`) and passed on as one frozen object.

Where things lie below the data directory is told here and nowhere else.
"""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from wavegate_server.core.class_limits import DEFAULT_LIMITS, ClassLimit
from wavegate_shared.topics import DEFAULT_PREFIX, Topics

__all__ = ["Settings"]


class Settings(BaseSettings):
    """Everything an operator can set. Defaults are those of the one-machine quick start."""

    model_config = SettingsConfigDict(env_prefix="WAVEGATE_", frozen=True, extra="ignore")

    data_dir: Path = Path.home() / ".local" / "share" / "wavegate"
    host: str = "127.0.0.1"
    port: int = 8443
    public_name: str = "localhost"
    """Host name or address that devices and browsers use; it goes into the server's certificate."""
    database_url: str = ""
    broker: str = "auto"
    """`auto` (mosquitto when found, else embedded), `embedded`, `mosquitto`, or `external`."""
    broker_host: str = "127.0.0.1"
    broker_port: int = 8883
    topic_prefix: str = DEFAULT_PREFIX
    tick_s: float = 0.5
    """How often the rollout engine looks for work."""
    raw_retention_h: int = 48
    device_certificate_days: float = Field(default=90.0, gt=0, le=3650)
    """Life of a device's certificate; the device renews it from two thirds of that on."""
    renewal_grace_days: int = Field(default=365, ge=0, le=36500)
    """For so long after its end a device that was switched off may still renew it."""
    upload_limit_mb: int = 2048
    """Largest bundle the API takes."""
    class_limits: dict[str, ClassLimit] = DEFAULT_LIMITS
    """By hardware class (`*`: any other): above these parameters or MFLOPs of an inference a model is imported with a warning.
    JSON, as {"pi4": {"parameters": 10000000, "mflops": 2000}}."""
    run_source: bool = False
    """Whether compression jobs of this server run the torch module of a bundle, to distil it: whoever may import a bundle can
    then run code as the server's user, beside its keys."""

    @property
    def topics(self) -> Topics:
        """Topic names below the configured prefix."""
        return Topics(self.topic_prefix)

    @property
    def db_url(self) -> str:
        """The database's URL: `database_url`, or SQLite in the data directory."""
        return self.database_url or f"sqlite:///{self.data_dir / 'wavegate.db'}"

    @property
    def ready_file(self) -> Path:
        """Where a running server writes its address once it answers (JSON, mode 0600: pid, url, ...); removed when it ends."""
        return self.data_dir / "serve.json"

    @property
    def keys_dir(self) -> Path:
        """Signing keys that live on this machine."""
        return self.data_dir / "keys"

    @property
    def tuf_dir(self) -> Path:
        """TUF metadata and targets."""
        return self.data_dir / "tuf"

    @property
    def ca_dir(self) -> Path:
        """The internal certificate authority, and the server's own certificates."""
        return self.data_dir / "ca"

    @property
    def objects_dir(self) -> Path:
        """Artifacts, named by digest."""
        return self.data_dir / "objects"

    @property
    def compress_dir(self) -> Path:
        """Compression jobs under way, and the steps they have finished."""
        return self.data_dir / "compress"

    @property
    def broker_dir(self) -> Path:
        """Generated broker configuration."""
        return self.data_dir / "broker"

    @property
    def admin_token_file(self) -> Path:
        """The first administrator's API token, mode 0600."""
        return self.data_dir / "admin.token"
