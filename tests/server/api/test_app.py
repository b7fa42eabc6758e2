"""The application: one prefix, no foreign scripts, the context where endpoints and pages find it."""

from fastapi import FastAPI

from tests.support.api_server import Api
from wavegate_server.api.app import PREFIX


def test_every_documented_path_is_below_the_prefix(api: Api) -> None:
    document = api.client.get(f"{PREFIX}/openapi.json").json()
    assert document["openapi"].startswith("3.")
    assert all(path.startswith(f"{PREFIX}/") for path in document["paths"])


def test_the_pages_that_load_scripts_from_elsewhere_are_off(api: Api) -> None:
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert api.client.get(path).status_code == 404


def test_the_context_is_on_the_application(api: Api) -> None:
    assert isinstance(api.client.app, FastAPI)
    assert api.client.app.state.context is api.context
