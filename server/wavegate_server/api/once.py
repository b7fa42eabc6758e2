"""Idempotency-Key: a POST that is repeated with the same key is done once and answered the same.

The answer is stored in the transaction that makes the change, so a crash leaves either both or neither. Keys live for a day
and belong to one caller and one address; the same key with another body is refused. An answer that holds a secret (a token)
is not stored: its repeat gets `conflict`, and making another token is harmless.
"""

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel
from sqlmodel import Session, col, delete

from wavegate_server.adapters.database.tables import IdempotencyKey
from wavegate_server.api.auth import principal_of
from wavegate_server.api.context import Ctx
from wavegate_shared.errors import UsageError

__all__ = ["Once", "OnceKey"]

KEY_LIFE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Once:
    """One request's idempotency: `replay` first, then the change, then `answer`, all in one write transaction."""

    key: str | None
    body_hash: str
    now: datetime

    def for_body(self, body_hash: str) -> "Once":
        """The same key for a body whose digest is known only later (an upload)."""
        return replace(self, body_hash=body_hash)

    def replay(self, session: Session) -> Response | None:
        """The answer given before, or None. Raises UsageError `invalid` (another body) or `conflict` (a secret)."""
        row = None if self.key is None else session.get(IdempotencyKey, self.key)
        if row is None or row.created_at + KEY_LIFE <= self.now:
            return None
        if row.body_hash != self.body_hash:
            raise UsageError("invalid", "this Idempotency-Key was used with another body; use a new key")
        if row.body is None:
            raise UsageError("conflict", "this was done before, and its answer held a secret that is shown only once")
        headers = {**row.headers, "Idempotency-Replayed": "true"}
        return Response(row.body, row.status, headers, media_type="application/json")

    def answer(
        self,
        session: Session,
        body: BaseModel,
        *,
        status: int = 200,
        headers: dict[str, str] | None = None,
        secret: bool = False,
    ) -> Response:
        """The answer to this request, stored under its key when it has one."""
        content = body.model_dump_json(by_alias=True).encode()
        headers = {**(headers or {}), "Cache-Control": "no-store"} if secret else headers or {}
        if self.key is not None:
            session.exec(delete(IdempotencyKey).where(col(IdempotencyKey.created_at) <= self.now - KEY_LIFE))
            session.add(
                IdempotencyKey(
                    key=self.key,
                    body_hash=self.body_hash,
                    status=status,
                    headers=headers,
                    body=None if secret else content,
                    created_at=self.now,
                )
            )
            session.flush()
        return Response(content, status, headers, media_type="application/json")


async def _body_hash(request: Request) -> str:
    upload = request.headers.get("content-type", "").startswith("multipart/")
    return "" if upload else hashlib.sha256(await request.body()).hexdigest()


def _once(
    request: Request,
    context: Ctx,
    body_hash: Annotated[str, Depends(_body_hash)],
    idempotency_key: Annotated[
        str | None, Header(min_length=1, max_length=200, description="a repeat with the same key is done once")
    ] = None,
) -> Once:
    if idempotency_key is None:
        return Once(None, body_hash, context.clock())
    principal = principal_of(request, context)
    caller = "" if principal is None else f"{principal.token_id}:{principal.name}"
    text = "\n".join((caller, request.method, request.url.path, idempotency_key))
    return Once(hashlib.sha256(text.encode()).hexdigest(), body_hash, context.clock())


OnceKey = Annotated[Once, Depends(_once)]
