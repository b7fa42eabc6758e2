"""Enrolment over HTTP: a token buys one certificate, and a bad one buys nothing."""

import json
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from fastapi.testclient import TestClient
from httpx2 import Response

from tests.support.api_server import Api, csr
from wavegate_server.api import create_api
from wavegate_server.api.enrol import EnrolAnswer
from wavegate_shared.enrolment import EnrolmentAnswer

DEVICE = {"id": "kiosk-1", "class": "edge-a", "site": "berlin"}


def test_an_enrolled_device_knows_all_it_needs(api: Api) -> None:
    answer = api.enrol("kiosk-1")
    name = x509.load_pem_x509_certificate(answer["certificate"].encode()).subject
    assert name.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "kiosk-1"
    assert answer["ca"] == api.context.authority.ca_pem()
    assert json.loads(answer["root"])["signed"]["_type"] == "root"
    assert (answer["hardware_class"], answer["site"], answer["topic_prefix"]) == ("edge-a", "berlin", "wavegate/v1")
    assert (answer["broker_host"], answer["broker_port"]) == ("localhost", 8883)
    assert api.client.get("/api/v1/devices/kiosk-1").json()["state"] == "active"


def test_the_document_names_what_a_device_reads() -> None:
    assert tuple(EnrolAnswer.model_fields) == EnrolmentAnswer.__struct_fields__


def test_a_token_works_once(api: Api) -> None:
    token = api.client.post("/api/v1/devices", json=DEVICE).json()["token"]["token"]
    statuses = [enrol(api, token).status_code for _ in range(2)]
    assert statuses == [200, 403]
    assert enrol(api, token).json()["code"] == "token_invalid"


def test_a_broken_request_leaves_the_token_good(api: Api) -> None:
    token = api.client.post("/api/v1/devices", json=DEVICE).json()["token"]["token"]
    broken = api.client.post("/api/v1/enrol", json={"token": token, "csr": "nonsense"})
    assert (broken.status_code, broken.json()["code"]) == (422, "certificate_invalid")
    assert enrol(api, token).status_code == 200


@pytest.mark.parametrize("token", ["", "wg1.kiosk-1.x.y", "wgt_x", "wg1.kiosk-1." + "A" * 43 + "." + "A" * 43])
def test_a_token_of_nobody_is_refused(api: Api, token: str) -> None:
    answer = enrol(api, token)
    assert (answer.status_code, answer.json()["code"]) == (403, "token_invalid")


def test_a_device_that_enrols_again_gets_its_old_certificate_revoked(api: Api) -> None:
    api.enrol("kiosk-1")
    before = api.context.authority.crl_path.read_bytes()
    enrol(api, api.client.post("/api/v1/devices/kiosk-1/token").json()["token"])
    assert api.context.authority.crl_path.read_bytes() != before


def test_a_renewal_over_https_needs_the_old_key(api: Api) -> None:
    api.enrol("kiosk-1")
    for device in ("kiosk-1", "kiosk-9"):  # says nothing about whether the device exists
        challenge = api.client.post("/api/v1/renew/challenge", json={"device": device}).json()["challenge"]
        body = {"device": device, "csr": csr(device), "challenge": challenge, "signature": "AAAA"}
        answer = api.client.post("/api/v1/renew", json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "renewal_refused")
    broken = api.client.post("/api/v1/renew", json={**body, "signature": "not base64!"})
    assert (broken.status_code, broken.json()["code"]) == (422, "invalid")
    assert api.client.get("/api/v1/devices/kiosk-1").json()["state"] == "active"


def test_an_external_broker_is_named_by_its_own_address(api: Api) -> None:
    settings = api.context.settings.model_copy(
        update={"broker": "external", "broker_host": "mq.example", "broker_port": 1}
    )
    token = api.client.post("/api/v1/devices", json=DEVICE).json()["token"]["token"]
    with TestClient(create_api(replace(api.context, settings=settings))) as client:
        answer = client.post("/api/v1/enrol", json={"token": token, "csr": csr("kiosk-1")}).json()
    assert (answer["broker_host"], answer["broker_port"]) == ("mq.example", 1)


def enrol(api: Api, token: str) -> Response:
    return api.client.post("/api/v1/enrol", json={"token": token, "csr": csr("kiosk-1")}, headers={"Authorization": ""})
