"""ETag and If-Match: nobody changes what they have not seen.

The tag is the row's revision. A change without If-Match is refused (428), one against an older revision as well (412);
`If-Match: *` says on purpose that any revision will do.
"""

from typing import Annotated

from fastapi import Header

from wavegate_shared.errors import UsageError

__all__ = ["IfMatch", "check_match", "etag"]

IfMatch = Annotated[str | None, Header(description="ETag that was read, or `*`", max_length=200)]


def etag(revision: int) -> str:
    """The strong tag of a revision."""
    return f'"{revision}"'


def check_match(if_match: str | None, revision: int) -> None:
    """Let a change of `revision` pass. Raises UsageError `precondition_required` or `precondition_failed`."""
    if if_match is None:
        raise UsageError("precondition_required")
    tags = [tag.strip() for tag in if_match.split(",")]
    if "*" not in tags and etag(revision) not in tags:
        raise UsageError(
            "precondition_failed", f"it is at revision {revision} now, the request was made for {if_match}"
        )
