"""A device's identity over its life: copied, given anew, handed over to other hardware."""

from sqlmodel import select

from tests.support.api_server import Api, csr
from wavegate_server.adapters.database.connection import read, write
from wavegate_server.adapters.database.tables import AuditEvent, Device, DeviceAssignment, DeviceEvent, DeviceSlot
from wavegate_server.adapters.store.device_messages import DeviceMessageStore
from wavegate_server.adapters.store.tokens import Role
from wavegate_shared.topics import Topics
from wavegate_shared.wire import Hello

URL = "/api/v1/devices"


def hello(api: Api, device: str, run: str, host: str) -> None:
    with write(api.context.engine) as session:
        message = Hello(boot=1, agent_version="1", run=run, facts={"host": host, "machine": "aarch64"})
        DeviceMessageStore(Topics()).apply_up(session, device, message, api.context.clock())


def serial(api: Api, device: str) -> str:
    with read(api.context.engine) as session:
        return session.get_one(Device, device).certificate_serial


def test_a_copied_identity_is_an_alert_and_one_command_ends_it(api: Api) -> None:
    api.enrol("kiosk-1")
    old = serial(api, "kiosk-1")
    for run, host in (("a", "gw-1"), ("b", "bench"), ("a", "gw-1"), ("b", "bench")):
        assert api.client.get(f"{URL}/kiosk-1").json()["state"] == "active"  # neither is refused
        hello(api, "kiosk-1", run, host)
    one = api.client.get(f"{URL}/kiosk-1").json()
    assert (one["health"], one["cloned"]) == ("attention", "gw-1 (aarch64, run a) and bench (aarch64, run b)")
    with read(api.context.engine) as session:
        alerts = [row.code for row in session.exec(select(DeviceEvent).where(DeviceEvent.kind == "alert"))]
    assert alerts == ["identity_cloned"]

    made = api.client.post(f"{URL}/kiosk-1/reissue", json={"reason": "SD card was copied"})
    assert made.status_code == 201
    assert old in api.context.authority.listed_serials()
    ended = api.client.get(f"{URL}/kiosk-1").json()
    assert (ended["state"], ended["cloned"]) == ("pending", "")
    answer = api.client.post("/api/v1/enrol", json={"token": made.json()["token"], "csr": csr("kiosk-1")})
    assert answer.status_code == 200
    hello(api, "kiosk-1", "c", "gw-1")
    assert api.client.get(f"{URL}/kiosk-1").json()["cloned"] == ""


def test_a_reissued_identity_renews_nothing(api: Api) -> None:
    api.enrol("kiosk-1")
    api.client.post(f"{URL}/kiosk-1/reissue")
    challenge = api.client.post("/api/v1/renew/challenge", json={"device": "kiosk-1"}).json()["challenge"]
    body = {"device": "kiosk-1", "csr": csr("kiosk-1"), "challenge": challenge, "signature": "AAAA"}
    assert api.client.post("/api/v1/renew", json=body).json()["code"] == "renewal_refused"


def test_new_hardware_takes_over_place_and_models(api: Api) -> None:
    api.enrol("kiosk-1", labels={"ring": "early"})
    with write(api.context.engine) as session:
        session.add(DeviceSlot(device_id="kiosk-1", model="pairs", version=1, state="idle"))
        session.add(DeviceSlot(device_id="kiosk-1", model="gone", version=1, removed=True))
    old = serial(api, "kiosk-1")

    made = api.client.post(f"{URL}/kiosk-1/replace", json={"new": "kiosk-1b"})
    assert (made.status_code, made.json()["device"]) == (201, "kiosk-1b")
    new = api.client.get(f"{URL}/kiosk-1b").json()
    assert (new["class"], new["site"], new["labels"], new["state"]) == (
        "edge-a",
        "berlin",
        {"ring": "early"},
        "pending",
    )
    assert api.client.get(f"{URL}/kiosk-1").json()["state"] == "revoked"
    assert old in api.context.authority.listed_serials()
    with read(api.context.engine) as session:
        slots = session.exec(select(DeviceSlot).where(DeviceSlot.device_id == "kiosk-1b")).all()
        assert [(slot.model, slot.assigned_version) for slot in slots] == [("pairs", 1)]
        assert session.get(DeviceAssignment, "kiosk-1b") is not None
        actions = [event.action for event in session.exec(select(AuditEvent))]
    assert "device.replace" in actions
    token = made.json()["token"]
    assert api.client.post("/api/v1/enrol", json={"token": token, "csr": csr("kiosk-1b")}).status_code == 200


def test_what_cannot_be_replaced_is_refused_and_nothing_is_lost(api: Api) -> None:
    for name in ("kiosk-1", "kiosk-2"):
        api.enrol(name)
    cases = (
        ("kiosk-9", "kiosk-3", 404, "not_found"),
        ("kiosk-1", "kiosk-2", 409, "conflict"),
        ("kiosk-1", "kiosk-1", 409, "conflict"),
        ("kiosk-1", "no/slash", 422, "invalid"),
    )
    for old, new, status, code in cases:
        answer = api.client.post(f"{URL}/{old}/replace", json={"new": new})
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert [api.client.get(f"{URL}/{name}").json()["state"] for name in ("kiosk-1", "kiosk-2")] == ["active", "active"]
    api.client.post(f"{URL}/kiosk-1/replace", json={"new": "kiosk-3"})
    again = api.client.post(f"{URL}/kiosk-1/replace", json={"new": "kiosk-4"})
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert api.client.post(f"{URL}/kiosk-1/reissue").status_code == 409


def test_viewers_may_do_neither(api: Api) -> None:
    api.enrol("kiosk-1")
    viewer = api.as_role(Role.VIEWER)
    assert api.client.post(f"{URL}/kiosk-1/reissue", headers=viewer).status_code == 403
    assert api.client.post(f"{URL}/kiosk-1/replace", json={"new": "x"}, headers=viewer).status_code == 403
