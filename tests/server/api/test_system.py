"""Health and the authority's certificate: for anybody."""

from dataclasses import replace

from fastapi.testclient import TestClient

from tests.support.api_server import Api
from wavegate_server.api import create_api


def test_a_well_server_is_ready_without_a_token(api: Api) -> None:
    answer = api.client.get("/api/v1/health", headers={"Authorization": ""})
    assert answer.status_code == 200
    assert answer.json() | {"version": ""} == {
        "live": True,
        "ready": True,
        "checks": {"database": ""},
        "failed_requests": 0,
        "version": "",
    }


def test_a_failed_check_makes_it_not_ready_and_says_which(api: Api) -> None:
    context = replace(api.context, checks={"broker": lambda: "no connection"})
    answer = TestClient(create_api(context)).get("/api/v1/health")
    assert answer.status_code == 503
    assert answer.json()["checks"] == {"database": "", "broker": "no connection"}
    assert answer.json()["live"] is True


def test_a_database_without_tables_is_not_ready(api: Api) -> None:
    with api.context.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE revision")
    assert api.client.get("/api/v1/health").json()["checks"]["database"] == "OperationalError"


def test_the_authority_certificate_is_public(api: Api) -> None:
    answer = api.client.get("/api/v1/ca", headers={"Authorization": ""})
    assert answer.text == api.context.authority.ca_pem()
    assert answer.headers["content-type"] == "application/x-pem-file"
