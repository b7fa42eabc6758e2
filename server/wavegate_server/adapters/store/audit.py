"""The audit log: append-only rows chained by hash, and the page's revision counter.

Every publish, sign, wave step, rollback, revoke and enrol writes one row in the transaction that does the thing. Changing or
removing a row breaks the chain from there on, and `verify_chain` names the first broken row. Not here: who may read it (API).

Source: docs/security.md.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert, update
from sqlmodel import Session, col, select

from wavegate_server.adapters.database.tables import AuditEvent, Revision

__all__ = ["GENESIS", "append", "bump_revision", "chain_hash", "verify_chain"]

GENESIS = "0" * 64
"""`prev_hash` of the first row."""


def append(
    session: Session, *, actor: str, action: str, subject: str, now: datetime, detail: Mapping[str, Any] | None = None
) -> AuditEvent:
    """Add one row to the chain, in the caller's transaction; also bumps the revision.

    Args:
        session: inside a write transaction.
        actor: who: a token's name, `system` or a device.
        action: what, as `rollout.create`.
        subject: to what, as `rollout/r-1f2e`.
        now: aware UTC.
        detail: JSON values only.
    """
    bump_revision(session)  # first: its row lock makes concurrent writers take turns on the chain's end
    session.flush()
    last = session.exec(select(AuditEvent).order_by(col(AuditEvent.id).desc()).limit(1)).first()
    previous = last.hash if last else GENESIS
    plain: dict[str, Any] = json.loads(json.dumps(detail or {}))
    event = AuditEvent(at=now, actor=actor, action=action, subject=subject, detail=plain, prev_hash=previous, hash="")
    event.hash = chain_hash(event)
    session.add(event)
    session.flush()
    return event


def chain_hash(event: AuditEvent) -> str:
    """The hash a row must carry: over the previous hash and the row's canonical JSON."""
    row = [event.at.astimezone(UTC).isoformat(), event.actor, event.action, event.subject, event.detail]
    text = json.dumps(row, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(f"{event.prev_hash}\n{text}".encode()).hexdigest()


def verify_chain(session: Session) -> int | None:
    """The id of the first row that does not fit the chain, or None when all do. The end cut off cannot be seen here."""
    previous = GENESIS
    for event in session.exec(select(AuditEvent).order_by(col(AuditEvent.id))):
        if event.prev_hash != previous or event.hash != chain_hash(event):
            return event.id
        previous = event.hash
    return None


def bump_revision(session: Session) -> None:
    """Tell the pages that something visible changed: one more on the single `Revision` row."""
    changed = session.connection().execute(
        update(Revision).where(col(Revision.id) == 1).values(value=col(Revision.value) + 1)
    )
    if changed.rowcount == 0:
        session.connection().execute(insert(Revision).values(id=1, value=1))
