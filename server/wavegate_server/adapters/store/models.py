"""The operator's changes to models after their versions exist: aliases, and the mark of a revoked version.

Not here: import and publish (`registry`), the signed release list itself (`tuf_repo`), reading (`reads`).
"""

from datetime import datetime
from enum import StrEnum

from sqlmodel import Session, select

from wavegate_server.adapters.database.tables import Model, Version
from wavegate_server.adapters.store import audit
from wavegate_server.core.sentences import Sentence
from wavegate_shared.errors import UsageError

__all__ = ["Alias", "get_model", "get_version", "mark_revoked", "set_alias"]


class Alias(StrEnum):
    """A moving name of a version: the one in charge, and the one on trial."""

    CHAMPION = "champion"
    CHALLENGER = "challenger"


def get_model(session: Session, name: str) -> Model:
    """The model's row. Raises UsageError `not_found`."""
    model = session.get(Model, name)
    if model is None:
        raise UsageError("not_found", Sentence("missing.model", name=repr(name)))
    return model


def get_version(session: Session, model: str, number: int) -> Version:
    """The version's row. Raises UsageError `not_found`."""
    row = session.exec(select(Version).where(Version.model == model, Version.number == number)).first()
    if row is None:
        raise UsageError("not_found", Sentence("missing.version", version=number, name=repr(model)))
    return row


def set_alias(session: Session, model: Model, alias: Alias, number: int | None, *, actor: str, now: datetime) -> Model:
    """Point an alias at a published version, or at none.

    Raises:
        UsageError: `not_found`; `conflict` for a version that is not published.
    """
    if number is not None and get_version(session, model.name, number).state != "published":
        raise UsageError("conflict", f"version {number} of {model.name} is not published")
    if alias is Alias.CHAMPION:
        model.champion = number
    else:
        model.challenger = number
    model.revision += 1
    session.add(model)
    detail = {"alias": alias.value, "version": number}
    audit.append(session, actor=actor, action="model.alias", subject=f"model/{model.name}", now=now, detail=detail)
    return model


def mark_revoked(session: Session, version: Version, *, actor: str, now: datetime, reason: str) -> Version:
    """Note that a version was taken off the signed release list; aliases that named it name nothing. Idempotent: repeating the call has no further effect."""
    if version.state == "revoked":
        return version
    version.state = "revoked"
    session.add(version)
    model = get_model(session, version.model)
    model.champion = None if model.champion == version.number else model.champion
    model.challenger = None if model.challenger == version.number else model.challenger
    model.revision += 1
    session.add(model)
    subject = f"{version.model}/{version.number}"
    audit.append(session, actor=actor, action="version.revoke", subject=subject, now=now, detail={"reason": reason})
    return version
