"""Who looks."""

import pytest
from fastapi import Request

from tests.support.web_server import Dashboard
from wavegate_server.adapters.store.tokens import SESSION_COOKIE, Role
from wavegate_server.web.assets import load_assets
from wavegate_server.web.page_context import PageContext
from wavegate_server.web.render import Renderer, SignedOut


def request(cookie: str = "") -> Request:
    headers = [(b"cookie", f"{SESSION_COOKIE}={cookie}".encode())] if cookie else []
    return Request({"type": "http", "method": "GET", "path": "/fleet", "query_string": b"a=b", "headers": headers})


def test_a_viewer_has_the_rights_of_the_token(shared: Dashboard) -> None:
    desk = PageContext(shared.context, Renderer(load_assets(), shared.context.clock))
    viewer = desk.viewer(request(shared.cookie(Role.OPERATOR)))
    assert (viewer.may("rollouts"), viewer.may("models")) == (True, False)
    assert (viewer.path, viewer.language, viewer.theme) == ("/fleet?a=b", "en", "auto")


@pytest.mark.parametrize("cookie", ["", "forged"])
def test_nobody_without_a_session(shared: Dashboard, cookie: str) -> None:
    with pytest.raises(SignedOut):
        PageContext(shared.context, Renderer(load_assets(), shared.context.clock)).principal(request(cookie))
