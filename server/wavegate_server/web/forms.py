"""A form that was refused: its page is shown again, with the message at the field and what was typed still in it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from wavegate_server.api.problems import status_of
from wavegate_server.core.sentences import said_of
from wavegate_shared.errors import WavegateError

__all__ = ["FormProblem", "wrong"]


@dataclass(frozen=True, slots=True)
class FormProblem:
    """What is wrong with a form. `at`: the field it is about, empty for the form as a whole; `values`: what was typed."""

    code: str
    detail: str
    at: str = ""
    values: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, error: WavegateError, at: str = "", values: Mapping[str, str] | None = None) -> "FormProblem":
        """From the error that refused it."""
        return cls(error.code, error.detail, at, dict(values or {}))

    @property
    def said(self) -> Mapping[str, Any]:
        """`detail` as a code with parameters; empty where it has none."""
        return said_of(self.detail)

    @property
    def status(self) -> int:
        """The HTTP status of the page."""
        return status_of(self.code)


def wrong(problem: FormProblem | None, field_name: str, hint: str = "") -> Markup:
    """The attributes of a form's field: where its message and its hint (an id) are, and that it is the one to correct."""
    if problem is None or problem.at != field_name:
        return Markup(' aria-describedby="{}"').format(hint) if hint else Markup("")
    said = f"{field_name}-error {hint}".strip()
    return Markup(' aria-invalid="true" autofocus aria-describedby="{}"').format(said)
