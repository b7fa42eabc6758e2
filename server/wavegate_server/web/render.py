"""From a template and data to a response: language, theme, security headers, compression, and errors as pages.

The content policy allows nothing inline and nothing foreign. A change from a browser is checked by Origin (`actions`), so
pages carry no secret and may be compressed.
"""

import gzip
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from wavegate_server.adapters.store.tokens import Principal, Scope
from wavegate_server.api.problems import status_of
from wavegate_server.core.sentences import said_of
from wavegate_server.web import compress_words, formats, forms, i18n, pictures, words
from wavegate_server.web.assets import Assets
from wavegate_shared.errors import WavegateError

__all__ = [
    "HEADERS",
    "HTML",
    "LANGUAGE_COOKIE",
    "THEMES",
    "THEME_COOKIE",
    "PageRoute",
    "Renderer",
    "SignedOut",
    "Viewer",
    "is_part",
    "packed",
]

log = logging.getLogger(__name__)

LANGUAGE_COOKIE = "wavegate-language"
THEME_COOKIE = "wavegate-theme"
THEMES = ("auto", "light", "dark")
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
    "vary": "hx-request, accept-encoding, accept-language, cookie",
}
HTML = "text/html; charset=utf-8"
PROBLEMS = (
    "conflict", "forbidden", "internal", "invalid", "method_not_allowed", "not_found", "precondition_failed", "too_large",
    "unauthenticated",
)  # fmt: skip
"""Codes that have a heading of their own on the problem page."""
_TEMPLATES = Path(__file__).parent / "templates"
_WORTH_PACKING = 1024


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks, and how they want to see it. `path` is the page's own URL, for links that come back to it."""

    language: str
    theme: str
    path: str
    principal: Principal | None = None

    def may(self, scope: str) -> bool:
        """Whether the viewer may do what needs `scope`."""
        return self.principal is not None and self.principal.may(Scope(scope))


class SignedOut(Exception):
    """The page needs somebody signed in."""


class Renderer:
    """The templates, with the functions they call."""

    def __init__(self, assets: Assets, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._environment = Environment(
            loader=FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(
            asset=assets.url,
            difference=words.difference,
            donut=pictures.donut,
            in_order=words.in_order,
            known_problems=PROBLEMS,
            languages=i18n.LANGUAGES,
            policy_text=words.policy_text,
            sparkline=pictures.sparkline,
            stacked=pictures.stacked,
            version_counts=words.version_counts,
        )
        self._environment.filters["wrong"] = forms.wrong
        self._environment.filters.update({name: getattr(formats, name) for name in formats.__all__ if name != "NONE"})

    def page(self, request: Request, name: str, viewer: Viewer, *, status: int = 200, **data: Any) -> Response:
        """A whole page; or, when htmx asks, only the live part of it."""
        if is_part(request):
            return packed(request, self.part(name, viewer, **data).encode(), HTML, status)
        text = self._environment.get_template(name).render(self._values(viewer, data))
        return packed(request, text.encode(), HTML, status)

    def part(self, name: str, viewer: Viewer, **data: Any) -> str:
        """The live part of a page: the template's block `live`."""
        template = self._environment.get_template(name)
        return "".join(template.blocks["live"](template.new_context(self._values(viewer, data))))

    def _values(self, viewer: Viewer, data: dict[str, Any]) -> dict[str, Any]:
        t = i18n.translator(viewer.language)
        now = self._clock()
        said = words.Words(t)

        def ago(at: datetime | None) -> str:
            return i18n.ago(t, at, now)

        return {
            **data,
            "t": t,
            "viewer": viewer,
            "ago": ago,
            "label": said.label,
            "speaker": said.speaker,
            "why_text": said.why,
            "wave_name": said.wave_name,
            "comparison": said.comparison,
            "compress": compress_words.CompressWords(t),
        }

    def problem(
        self, request: Request, viewer: Viewer, code: str, detail: str, *, status: int | None = None
    ) -> Response:
        """An error as a page, with its stable code."""
        status = status_of(code) if status is None else status
        return self.page(request, "problem.html", viewer, status=status, code=code, detail=detail, said=said_of(detail))

    def server_problem(self, request: Request, viewer: Viewer, code: str, detail: str, status: int) -> Response:
        """The same for what no page of ours said: an address that is none, a method that is not taken, a failure."""
        own = i18n.catalogue(viewer.language).get(f"problem.text.{code}", "")
        own = own.format_map({"path": request.url.path}) if own else ""
        return self.page(request, "problem.html", viewer, status=status, code=code, detail=detail, said={}, own=own)


def is_part(request: Request) -> bool:
    """Whether htmx asks for the part of the page that changes."""
    return request.headers.get("hx-request") == "true" and request.headers.get("hx-request-type") == "partial"


def viewer_of(request: Request, principal: Principal | None = None) -> Viewer:
    """Language and theme from the browser's cookies and headers."""
    theme = request.cookies.get(THEME_COOKIE, "auto")
    query = f"?{request.url.query}" if request.url.query else ""
    return Viewer(
        language=i18n.choose(request.cookies.get(LANGUAGE_COOKIE), request.headers.get("accept-language")),
        theme=theme if theme in THEMES else "auto",
        path=request.url.path + query,
        principal=principal,
    )


def page_route(renderer: Renderer) -> type[APIRoute]:
    """The route class of pages: what goes wrong on purpose becomes a page, a signed-out browser is sent to sign in."""

    class _PageRoute(PageRoute):
        pages = renderer

    return _PageRoute


class PageRoute(APIRoute):
    """See `page_route`."""

    pages: Renderer

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the endpoint."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except SignedOut:
                return _to_login(request)
            except WavegateError as error:
                code, detail = error.code, error.detail
            except RequestValidationError as error:
                first = error.errors()[0]
                code, detail = "invalid", f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
            log.info("page_refused path=%s code=%s", request.url.path, code)
            viewer = viewer_of(request, getattr(request.state, "principal", None))
            return self.pages.problem(request, viewer, code, detail)

        return handle


def _to_login(request: Request) -> Response:
    if request.headers.get("hx-request") == "true" or request.url.path == "/events":
        return Response(status_code=401, headers={**HEADERS, "hx-redirect": "/login"})
    target = "/login" if request.method != "GET" or request.url.path == "/" else f"/login?next={request.url.path}"
    return Response(status_code=303, headers={**HEADERS, "location": target})


def packed(request: Request, content: bytes, media_type: str, status: int = 200) -> Response:
    """A response with the pages' headers, compressed where that is worth it."""
    headers = dict(HEADERS)
    if len(content) >= _WORTH_PACKING and "gzip" in request.headers.get("accept-encoding", ""):
        content = gzip.compress(content, 5, mtime=0)
        headers["content-encoding"] = "gzip"
    return Response(content, status, headers, media_type=media_type)
