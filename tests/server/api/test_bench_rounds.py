"""Bench rounds over the API: who may, what is refused before anything is stored, list, cancel, repeat."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.api_server import Api
from tests.support.bench_world import CLASS, DEVICE, URL, BenchWorld, bench_world, zipped
from tests.support.bundles import write_pair_bundle
from wavegate_server.adapters.store.tokens import Role


@pytest.fixture
def world(api: Api, tmp_path: Path) -> Iterator[BenchWorld]:
    with bench_world(api, tmp_path / "bundles") as made:
        yield made


def test_a_class_without_a_bench_device_is_told_how_to_enrol_one(api: Api, tmp_path: Path) -> None:
    api.enrol(DEVICE, CLASS)  # of the class, but not for benching
    with bench_world(api, tmp_path / "bundles", enrolled=False) as world:
        answer = world.ask("small")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert f"wavegate device token ID --class {CLASS} --site SITE --bench" in answer.json()["detail"]


def test_bad_rounds_are_refused(world: BenchWorld, tmp_path: Path) -> None:
    assert world.ask("original").json()["code"] == "invalid"
    assert world.ask("small", "small").json()["code"] == "invalid"
    assert world.ask(*"abcdefghi").json()["code"] == "invalid"
    assert world.ask("small", timeout_s=0.5).status_code == 422
    assert world.ask("small", timeout_s=1e9).status_code == 422
    assert world.ask().status_code == 422
    world.bundles["other"] = write_pair_bundle(tmp_path / "other", model="another")
    assert "one model" in world.ask("other").json()["detail"]
    broken = [
        ("original", ("original.zip", zipped(world.bundles["original"]))),
        ("candidates", ("x.zip", io.BytesIO(b"no zip"))),
    ]
    answer = world.api.client.post(URL, files=broken, data={"class": CLASS})
    assert (answer.status_code, answer.json()["code"]) == (422, "bundle_invalid")
    assert world.api.client.get(URL).json()["items"] == []
    assert not list((world.api.context.settings.data_dir / "uploads").iterdir())


def test_a_viewer_may_look_and_not_ask(world: BenchWorld) -> None:
    name = world.queued("small")
    viewer = world.api.as_role(Role.VIEWER)
    assert world.api.client.get(f"{URL}/{name}", headers=viewer).status_code == 200
    assert world.api.client.post(f"{URL}/{name}/cancel", headers=viewer).status_code == 403


def test_rounds_are_listed_newest_first(world: BenchWorld) -> None:
    names = []
    for _ in range(3):
        names.append(world.queued("small"))
        world.clock.forward(seconds=1)
    page = world.api.client.get(URL, params={"limit": 2}).json()
    rest = world.api.client.get(URL, params={"limit": 2, "cursor": page["next_cursor"]}).json()
    assert [row["id"] for row in page["items"] + rest["items"]] == names[::-1]
    assert rest["next_cursor"] is None


def test_a_cancelled_round_gives_the_device_back(world: BenchWorld) -> None:
    name = world.queued("small")
    world.tick()
    assert world.api.client.post(f"{URL}/{name}/cancel").status_code == 428
    tag = world.api.client.get(f"{URL}/{name}").headers["etag"]
    answer = world.api.client.post(f"{URL}/{name}/cancel", headers={"If-Match": tag})
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    assert world.api.client.post(f"{URL}/{name}/cancel").status_code == 200
    world.tick()
    assert world.order().slots["pairs"].target == "pairs/1.json"
    assert world.states(name) == ["skipped"]


def test_a_round_that_is_none(world: BenchWorld) -> None:
    assert world.api.client.get(f"{URL}/b-00000000").status_code == 404


def test_benching_is_part_of_enrolment_and_shown(world: BenchWorld) -> None:
    client = world.api.client
    assert client.get(f"/api/v1/devices/{DEVICE}").json()["bench"] is True
    assert client.get("/api/v1/devices").json()["items"][0]["bench"] is True
    answer = world.api.enrol("kiosk-2", CLASS)
    assert answer["bench"] is False
    tag = client.get("/api/v1/devices/kiosk-2").headers["etag"]
    changed = client.patch("/api/v1/devices/kiosk-2", json={"bench": True}, headers={"If-Match": tag})
    assert changed.json()["bench"] is True
    refused = client.post("/api/v1/devices", json={"id": "x", "class": "Edge A", "site": "here", "bench": True})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")
