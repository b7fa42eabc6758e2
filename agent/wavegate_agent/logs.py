"""The agent's log lines: one event name plus key=value each, as text or as one JSON object a line, on standard error."""

import json
import logging
import sys
from datetime import UTC, datetime

__all__ = ["JsonLines", "configure"]


class JsonLines(logging.Formatter):
    """One JSON object a record: time, level, logger, message, and the trace when there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(*, as_json: bool, verbose: bool) -> None:
    """Log to standard error from now on."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")
    handler.setFormatter(JsonLines() if as_json else text)
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler], force=True)
    for library in ("tuf", "httpx", "httpcore", "securesystemslib"):
        logging.getLogger(library).setLevel(logging.WARNING)
