"""The `rq` channel: requests of devices go to who answers them. Not here: chunks, documents and the time (`delivery`)."""

import logging
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Engine

from wavegate_server.adapters import clock
from wavegate_server.adapters.database.connection import write
from wavegate_server.adapters.trust.authority import Authority
from wavegate_server.adapters.trust.renewal import renew
from wavegate_server.services.delivery import Delivery, Send
from wavegate_shared.errors import TransferError, WavegateError
from wavegate_shared.topics import Topics
from wavegate_shared.wire import ChunkRequest, DocumentRequest, Renewed, RenewRequest, TimeRequest, encode

__all__ = ["DeviceRequests"]

_LOG = logging.getLogger(__name__)


class DeviceRequests:
    """Answers everything a device asks for; any thread."""

    def __init__(
        self,
        delivery: Delivery,
        database: Engine,
        authority: Authority,
        send: Send,
        topics: Topics,
        *,
        now: Callable[[], datetime] = clock.now,
    ) -> None:
        self._delivery, self._database, self._authority = delivery, database, authority
        self._send, self._topics, self._now = send, topics, now

    def handle(self, device_id: str, message: ChunkRequest | DocumentRequest | TimeRequest | RenewRequest) -> None:
        """Answer one request of an active device. A refused renewal is answered, too, so that the device can say why."""
        if not isinstance(message, RenewRequest):
            self._delivery.handle(device_id, message)
            return
        try:
            with write(self._database) as session:
                certificate = renew(session, self._authority, device_id, message.csr, self._now())
            answer = Renewed(certificate=certificate)
        except WavegateError as error:
            _LOG.warning("renewal_refused device=%s code=%s detail=%s", device_id, error.code, error.detail)
            answer = Renewed(code=error.code, detail=error.detail[:500])
        try:
            self._send(self._topics.cmd(device_id), encode(answer), 1)
        except TransferError as error:
            _LOG.debug("renewal.not_sent device=%s error=%s", device_id, error)
