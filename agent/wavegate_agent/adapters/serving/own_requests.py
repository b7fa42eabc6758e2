"""The agent's own requests as the worker sees them: it writes their bodies, knows them again, and lets them count nowhere.

How to think of this: on a device without traffic the agent proves a version by golden samples that go through the public socket.
The worker makes each request's body (the control process has no numpy) and a random token for it. The request carries the token
in `OWN_FIELD`; a token is good once. A request with a token that this worker did not make is refused and counts nowhere either:
so an application cannot hide its requests, and an own request that reaches another worker is never taken for a live one.
"""

import secrets
from collections import deque
from typing import BinaryIO

from wavegate_agent.adapters.serving.connections import Response
from wavegate_agent.adapters.serving.tensors import Array, from_array
from wavegate_agent.core.http1 import RequestHead
from wavegate_agent.core.oip import OWN_FIELD, OWN_LATENCY_FIELD, render_request
from wavegate_shared.errors import UsageError

__all__ = ["OwnRequests"]

_MAX_TOKENS = 4
"""Own requests go one at a time; a token whose request never came is forgotten."""


class OwnRequests:
    """Tokens of own requests under way. `write` runs on the jobs' thread, `recognise` on pool threads."""

    def __init__(self) -> None:
        self._tokens: deque[str] = deque(maxlen=_MAX_TOKENS)

    def write(self, inputs: dict[str, Array], body: BinaryIO) -> tuple[str, int]:
        """Write a request with these inputs.

        Returns:
            The token that marks it, and the length of its JSON header.
        """
        header, pieces = render_request([from_array(name, array, binary=True) for name, array in inputs.items()])
        for piece in pieces:
            body.write(piece)
        token = secrets.token_hex(16)
        self._tokens.append(token)
        return token, header

    def recognise(self, head: RequestHead | None) -> bool:
        """Whether a request is the agent's own.

        Raises:
            UsageError: `invalid`: it says so, but its token is not known here or was used before.
        """
        token = head.fields.get(OWN_FIELD.lower()) if head is not None else None
        if token is None:
            return False
        try:
            self._tokens.remove(token)
        except ValueError:
            raise UsageError("invalid", f"{OWN_FIELD} is for the agent's own requests") from None
        return True

    def answer(self, response: Response, latency_ms: float) -> Response:
        """The same answer with the time it took, as a live request is timed."""
        field = (OWN_LATENCY_FIELD, f"{latency_ms:.3f}")
        return Response(response.status, [field], list(response.pieces[1:]), keep_alive=not response.close)
