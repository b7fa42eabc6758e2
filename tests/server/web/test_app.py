"""The router as a whole, and the event stream over it."""

import ssl

import httpx
from fastapi.routing import APIRoute

from tests.support.web_server import Dashboard, serve


def test_pages_stay_out_of_the_api_document(shared: Dashboard) -> None:
    document = shared.app.openapi()
    assert all(path.startswith("/api/v1") for path in document["paths"])


def test_every_page_but_sign_in_and_assets_needs_a_session(shared: Dashboard) -> None:
    open_to_all = {"/static/{name:path}", "/", "/login", "/logout", "/preferences"}
    routes = [route for route in shared.pages.routes if isinstance(route, APIRoute)]
    assert open_to_all < {route.path for route in routes}
    with shared.client(None) as client:
        for route in routes:
            assert not route.include_in_schema
            if route.path not in open_to_all:
                path = (
                    route.path.replace("{action}", "pause")
                    .replace("{job_id}", "1")
                    .format_map(dict.fromkeys(route.param_convertors, "x"))
                )
                answer = client.request(min(route.methods or {"GET"}), path)
                assert answer.status_code in (303, 401), route.path


def test_the_event_stream_carries_a_number_and_is_never_stored(dashboard: Dashboard) -> None:
    ca = str(dashboard.context.settings.ca_dir / "ca.pem")
    cookies = {"__Host-wavegate": dashboard.cookie()}
    with serve(dashboard) as url, httpx.Client(verify=_context(ca), cookies=cookies) as client:
        stream = client.stream("GET", f"{url}/events")
        with stream as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.headers["cache-control"] == "no-store"
            lines = answer.iter_lines()
            assert [next(lines) for _ in range(4)] == ["retry: 2000", "", "event: tick", "data: 7"]


def _context(ca: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca)
