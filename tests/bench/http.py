"""What HTTPS costs beside the bare route: a small GET on one kept connection to a real server.

`p50_ratio` is the product's `/api/v1/ca` (a text of 0.6 kB, no database) over the same text from a bare FastAPI route under
uvicorn with the same certificate, in one run, turn by turn; `health_ratio` is `/api/v1/health`, which reads the database,
over the same bare route. A listener without TCP_NODELAY shows as ratios above ten.
"""

import argparse
import json
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from wavegate_server.demo.fleet import Fleet
from wavegate_server.demo.processes import Processes

_ROUNDS, _QUICK_ROUNDS = 2000, 200
_PATHS = ("/api/v1/ca", "/api/v1/health", "/login")
_BARE = """
import json, sys, uvicorn
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from wavegate_server.app import bind_listener
from wavegate_server.config import Settings
answer, certificate, key, ready = json.loads(sys.argv[1])
app = FastAPI()

@app.get("/bare")
def bare():
    return PlainTextResponse(answer)

listener = bind_listener(Settings(host="127.0.0.1", port=0))
listener.listen()
open(ready, "w").write(str(listener.getsockname()[1]))
config = uvicorn.Config(app, ssl_certfile=certificate, ssl_keyfile=key, log_config=None, access_log=False)
uvicorn.Server(config).run(sockets=[listener])
"""


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Figures: p50_ratio, health_ratio, and the times they come from."""
    rounds = _QUICK_ROUNDS if options.quick else _ROUNDS
    with tempfile.TemporaryDirectory(prefix="wg-") as scratch, Processes(Path(scratch) / "logs") as processes:
        fleet = Fleet(Path(scratch), processes)
        url = fleet.start_server()
        ca = Path(scratch) / "server" / "ca"
        trusted = ssl.create_default_context(cafile=ca / "ca.pem")
        with httpx.Client(base_url=url, verify=trusted, trust_env=False) as product:
            answer = product.get("/api/v1/ca").text
            bare_url, child = _start_bare(answer, ca, Path(scratch) / "bare-port")
            try:
                with httpx.Client(base_url=bare_url, verify=trusted, trust_env=False) as bare:
                    calls = [partial(bare.get, "/bare"), *(partial(product.get, path) for path in _PATHS)]
                    bare_s, ca_s, health_s, page_s = _race(rounds, *calls)
            finally:
                child.terminate()
                child.wait()
    p50 = [statistics.median(times) * 1e3 for times in (bare_s, ca_s, health_s, page_s)]
    return {
        "p50_ratio": round(p50[1] / p50[0], 2),
        "health_ratio": round(p50[2] / p50[0], 2),
        "bare_p50_ms": round(p50[0], 2),
        "p50_ms": round(p50[1], 2),
        "health_p50_ms": round(p50[2], 2),
        "login_page_p50_ms": round(p50[3], 2),
        "p99_ms": round(statistics.quantiles(ca_s, n=100)[98] * 1e3, 2),
    }


def _start_bare(answer: Any, ca: Path, ready: Path) -> tuple[str, subprocess.Popen[bytes]]:
    certificate, key = next((path, path.with_name("server.key")) for path in ca.rglob("server.pem"))
    job = json.dumps([answer, str(certificate), str(key), str(ready)])
    child = subprocess.Popen([sys.executable, "-c", _BARE, job])
    deadline = time.monotonic() + 30
    while not (ready.is_file() and ready.read_text(encoding="utf-8")):
        if child.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the bare server did not come up")
        time.sleep(0.05)
    return f"https://localhost:{ready.read_text(encoding='utf-8')}", child


def _race(rounds: int, *calls: Callable[[], httpx.Response]) -> list[list[float]]:
    """Seconds of each call, turn by turn; the first ten turns warm up."""
    took: list[list[float]] = [[] for _ in calls]
    for turn in range(rounds + 10):
        for call, times in zip(calls, took, strict=True):
            begun = time.perf_counter()
            call().raise_for_status()
            if turn >= 10:
                times.append(time.perf_counter() - begun)
    return took
