"""ETag and If-Match: nobody changes what they have not seen.

The tag is the row's revision. A change without If-Match is refused (428), one against an older revision as well (412);
`If-Match: *` says on purpose that any revision will do.
"""

from typing import Annotated

from fastapi import Header

from wavegate_shared.errors import UsageError

__all__ = ["IfMatch", "check_match", "etag", "fits"]

IfMatch = Annotated[str | None, Header(description="ETag that was read, or `*`", max_length=200)]


def etag(revision: int) -> str:
    """The strong tag of a revision."""
    return f'"{revision}"'


def fits(if_match: str, revision: int) -> bool:
    """Whether one of the tags is the revision's, or any will do."""
    tags = [tag.strip() for tag in if_match.split(",")]
    return "*" in tags or etag(revision) in tags


def check_match(if_match: str | None, revision: int) -> None:
    """Let a change of `revision` pass. Raises UsageError `precondition_required` or `precondition_failed`."""
    if if_match is None:
        raise UsageError("precondition_required")
    if not fits(if_match, revision):
        raise UsageError(
            "precondition_failed", f"it is at revision {revision} now, the request was made for {if_match}"
        )
