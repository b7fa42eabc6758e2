"""The child process: says its port, ends with its parent; and loses nothing while clients come and go."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.broker import Client, TestAuthority, running_broker
from wavegate_server.adapters.broker.embedded import read_settings
from wavegate_shared.topics import Topics

pytestmark = pytest.mark.e2e
TOPICS = Topics()


def config_file(directory: Path) -> Path:
    files = TestAuthority(directory / "ca").service("broker")
    path = directory / "embedded.json"
    path.write_text(
        json.dumps(
            {
                "host": "127.0.0.1",
                "port": 0,
                "ca": str(files.ca),
                "certificate": str(files.certificate),
                "key": str(files.key),
                "deny_list": str(directory / "revoked.json"),
                "revoked_serials": str(directory / "crl.json"),
                "topic_prefix": "some/prefix",
                "max_packet_bytes": 4096,
            }
        )
    )
    return path


def test_the_settings_are_read_back(tmp_path: Path) -> None:
    settings = read_settings(config_file(tmp_path))
    assert (settings.host, settings.port, settings.topics) == ("127.0.0.1", 0, Topics("some/prefix"))
    assert settings.max_packet_bytes == 4096


def start(path: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "wavegate_server.adapters.broker.embedded", str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_it_says_its_port_and_ends_when_its_parent_does(tmp_path: Path) -> None:
    with start(config_file(tmp_path)) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert json.loads(child.stdout.readline())["port"] > 0
        child.stdin.close()
        assert child.wait(20) == 0


def test_it_ends_on_sigterm(tmp_path: Path) -> None:
    with start(config_file(tmp_path)) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.terminate()
        assert child.wait(20) == 0


def test_nothing_acknowledged_is_lost_while_others_subscribe_and_leave(tmp_path: Path) -> None:
    """The library alone loses a message when its table of subscriptions changes in the middle of a delivery."""
    with running_broker(tmp_path, "embedded") as (broker, authority):
        sender, restless = authority.issue("dev-a"), authority.issue("dev-b")
        server = authority.service("ingest-0")
        stop = threading.Event()

        def come_and_go() -> None:
            while not stop.is_set():
                with Client(broker, restless, restless.ca, "dev-b") as client:
                    for number in range(8):
                        client.subscribe(f"{TOPICS.prefix}/x/{number}/c")

        thread = threading.Thread(target=come_and_go)
        with Client(broker, server, server.ca, "ingest-0") as receiver, Client(broker, sender, sender.ca, "dev-a") as a:
            receiver.subscribe(TOPICS.up_filter())
            thread.start()
            sent = [b"%d" % number for number in range(1000)]
            a.publish(TOPICS.up(1, "dev-a", "tm"), *sent)
            receiver.wait_for(sent[-1])
            stop.set()
            thread.join()
            assert receiver.payloads() == sent
