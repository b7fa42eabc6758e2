"""Import the TUF client without the HTTP stack it brings: this agent's documents come over MQTT.

`tuf.ngclient` imports a fetcher over urllib3 (2 MB of memory, a tenth of the agent's import time) that is only used when none
is given. A placeholder takes that one module's place; it refuses to be used, so nothing can fall back to HTTP by mistake.
Import this module before `tuf.ngclient`.
"""

import sys
from types import ModuleType

__all__ = ["Urllib3Fetcher"]

_NAME = "tuf.ngclient.urllib3_fetcher"


class Urllib3Fetcher:
    """Stands where the library's default fetcher would, and says so."""

    def __init__(self, *_arguments: object, **_options: object) -> None:
        raise RuntimeError("pass a fetcher: this agent has no HTTP client")


if _NAME not in sys.modules:
    _placeholder = ModuleType(_NAME, "No HTTP here; see wavegate_agent.adapters.network.tuf_light.")
    _placeholder.Urllib3Fetcher = Urllib3Fetcher  # type: ignore[attr-defined]  # a module takes any attribute
    sys.modules[_NAME] = _placeholder
