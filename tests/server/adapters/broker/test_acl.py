"""Who a certificate speaks for, and what that identity may do."""

from typing import Any

import pytest
from amqtt.contexts import Action
from amqtt.session import Session

from wavegate_server.adapters.broker.acl import allows, identity_of_certificate, session_identity
from wavegate_server.core.mqtt_connect import Identity
from wavegate_shared.topics import Topics

TOPICS = Topics()
A = Identity("dev-a", server=False)


def certificate(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"subject": tuple((pair,) for pair in pairs)}


def test_a_device_and_a_server_certificate() -> None:
    device = certificate(("organizationalUnitName", "device"), ("commonName", "dev-a"))
    server = certificate(("commonName", "ingest-0"), ("organizationalUnitName", "server"))
    assert identity_of_certificate(device) == A
    assert identity_of_certificate(server) == Identity("ingest-0", server=True)


@pytest.mark.parametrize(
    "subject",
    [
        None,
        {},
        certificate(),
        certificate(("commonName", "dev-a"), ("commonName", "dev-b")),
        certificate(
            ("commonName", "dev-a"), ("organizationalUnitName", "device"), ("organizationalUnitName", "server")
        ),
        certificate(("commonName", "dev-+")),
        certificate(("commonName", "#")),
        certificate(("commonName", "a/b")),
    ],
)
def test_a_certificate_with_no_or_two_names_speaks_for_nobody(subject: dict[str, Any] | None) -> None:
    assert identity_of_certificate(subject) is None


@pytest.mark.parametrize("action", list(Action))
def test_the_server_may_do_everything(action: Action) -> None:
    assert allows(TOPICS, Identity("publisher", server=True), "any/topic", action)


def test_a_device_publishes_up_and_reads_down() -> None:
    up, down = TOPICS.up(1, "dev-a", "tm"), TOPICS.cmd("dev-a")
    assert allows(TOPICS, A, up, Action.PUBLISH)
    assert not allows(TOPICS, A, down, Action.PUBLISH)
    for action in (Action.SUBSCRIBE, Action.RECEIVE):
        assert allows(TOPICS, A, down, action)
        assert not allows(TOPICS, A, up, action)
        assert not allows(TOPICS, A, TOPICS.cmd("dev-b"), action)


def test_a_session_without_tls_has_no_identity() -> None:
    session = Session()
    session.client_id = "dev-a"
    assert session_identity(session) is None


def test_a_session_under_another_name_has_no_identity() -> None:
    session = Session()
    session.client_id = "dev-b"
    session.attributes["wavegate.identity"] = A
    assert session_identity(session) is None
