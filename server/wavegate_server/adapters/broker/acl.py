"""The embedded broker's access rule, as plug-ins of the broker library (amqtt).

Who a client is comes from its certificate and nothing else. A device publishes below its own `up/+/<dev>/` and subscribes
to its own topics and the broadcast ones; an identity with organizational unit `server` may do everything. The rule is asked
at SUBSCRIBE, at PUBLISH and again at each delivery. What the topics are is told in `wavegate_shared.topics`.
"""

import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from amqtt.contexts import Action, BaseContext
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin
from amqtt.session import Session

from wavegate_server.core.mqtt_connect import Identity
from wavegate_shared.topics import DEFAULT_PREFIX, Topics, device_may_publish, device_may_subscribe

__all__ = ["CertificateAuth", "TopicRule", "allows", "identity_of_certificate", "session_identity"]

_ATTRIBUTE = "wavegate.identity"


def identity_of_certificate(certificate: dict[str, Any] | None) -> Identity | None:
    """The identity a verified peer certificate (`SSLObject.getpeercert()`) speaks for, or None when it names none.

    Exactly one common name and at most one organizational unit: a certificate with two names speaks for nobody.
    """
    subject: Iterable[Iterable[tuple[str, str]]] = (certificate or {}).get("subject", ())
    pairs = [pair for group in subject for pair in group]
    names = [value for key, value in pairs if key == "commonName"]
    units = [value for key, value in pairs if key == "organizationalUnitName"]
    if len(names) != 1 or len(units) > 1:
        return None
    try:
        return Identity(names[0], server=units == ["server"])
    except ValueError:
        return None


def allows(topics: Topics, identity: Identity, topic: str, action: Action) -> bool:
    """Whether `identity` may do `action` on `topic` (a filter for SUBSCRIBE, a name otherwise)."""
    if identity.server:
        return True
    if action is Action.PUBLISH:
        return device_may_publish(topics, identity.name, topic)
    return device_may_subscribe(topics, identity.name, topic)


def session_identity(session: Session) -> Identity | None:
    """Who a broker session belongs to, by its TLS connection; None unless the client id is the certificate's name."""
    known = session.attributes.get(_ATTRIBUTE)
    if known is None and session.ssl_object is not None:
        tls = cast(ssl.SSLObject, session.ssl_object)
        known = identity_of_certificate(tls.getpeercert())
        session.attributes[_ATTRIBUTE] = known
    return known if known is not None and known.name == session.client_id else None


class CertificateAuth(BaseAuthPlugin):
    """Authentication plug-in: yes to a session whose client id is the name in its certificate."""

    @dataclass
    class Config:
        """No options."""

    def __init__(self, context: BaseContext) -> None:
        super().__init__(context)

    async def authenticate(self, *, session: Session) -> bool | None:
        """Whether the session is who it says; the gate has asked the same before."""
        return session_identity(session) is not None


class TopicRule(BaseTopicPlugin):
    """Topic plug-in: `allows` for the session's identity; nothing for a session without one."""

    @dataclass
    class Config:
        """Options. Attributes: prefix of all topics."""

        prefix: str = DEFAULT_PREFIX

    def __init__(self, context: BaseContext) -> None:
        super().__init__(context)
        self._topics = Topics(self._get_config_option("prefix", DEFAULT_PREFIX))

    def decide(self, session: Session, topic: str, action: Action) -> bool:
        """The verdict, at once."""
        identity = session_identity(session)
        return identity is not None and allows(self._topics, identity, topic, action)

    async def topic_filtering(
        self, *, session: Session | None = None, topic: str | None = None, action: Action | None = None
    ) -> bool | None:
        """The verdict in the form the plug-in API asks for."""
        if session is None or topic is None or action is None:
            return False
        return self.decide(session, topic, action)
