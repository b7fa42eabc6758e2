"""A server's compression queue as a process of its own, to be killed: `python -m tests.support.compress_server DATA_DIR`."""

import signal
import sys
from pathlib import Path

from tests.support.compress_jobs import SMALL
from wavegate_server.adapters.database.connection import open_engine
from wavegate_server.adapters.files.objects import Objects
from wavegate_server.config import Settings
from wavegate_server.services.compress_runner import CompressRunner

if __name__ == "__main__":
    settings = Settings(data_dir=Path(sys.argv[1]))
    runner = CompressRunner(
        open_engine(settings.db_url), Objects(settings.objects_dir), settings.compress_dir, module=SMALL
    )
    runner.start()
    signal.pause()
