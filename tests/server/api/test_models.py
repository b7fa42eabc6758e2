"""Models: a bundle comes in by upload, is published, aliased, taken back."""

import io
import zipfile
from pathlib import Path

import pytest
from httpx2 import Response

from tests.support.api_server import Api
from tests.support.bundles import write_pair_bundle

URL = "/api/v1/models"


def zipped(directory: Path) -> io.BytesIO:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for file in directory.iterdir():
            archive.write(file, file.name)
    out.seek(0)
    return out


def upload(api: Api, archive: io.BytesIO, key: str | None = None, **fields: str) -> Response:
    headers = {"Idempotency-Key": key} if key else {}
    return api.client.post(f"{URL}/import", files={"bundle": ("b.zip", archive)}, data=fields, headers=headers)


def test_an_uploaded_bundle_becomes_the_next_version_and_leaves_no_file(api: Api, tmp_path: Path) -> None:
    archive = zipped(write_pair_bundle(tmp_path / "b", floor=0.7))
    answer = upload(api, archive)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"{URL}/pairs/versions/3"
    version = answer.json()["version"]
    assert (version["number"], version["state"], version["metric"]["name"]) == (3, "imported", "accuracy")
    assert not list((api.context.settings.data_dir / "uploads").iterdir())


def test_the_same_bundle_again_is_the_version_it_is(api: Api) -> None:
    answer = upload(api, zipped(api.context.settings.data_dir / "bundle-1"))
    assert (answer.status_code, answer.json()["created"], answer.json()["version"]["number"]) == (200, False, 1)


def test_a_bundle_that_is_none_is_refused_and_leaves_no_file(api: Api) -> None:
    for content in (b"", b"not a zip", zipped(api.context.settings.data_dir / "bundle-1").read()[:-500]):
        answer = upload(api, io.BytesIO(content))
        assert (answer.status_code, answer.json()["code"]) == (422, "bundle_invalid")
    assert not list((api.context.settings.data_dir / "uploads").iterdir())


def test_a_failing_golden_set_is_refused_unless_unchecked(api: Api, tmp_path: Path) -> None:
    bundle = write_pair_bundle(tmp_path / "b", floor=1.5)
    assert upload(api, zipped(bundle)).json()["code"] == "bundle_invalid"
    assert upload(api, zipped(bundle), unchecked="true").status_code == 201


def test_an_upload_with_a_key_is_done_once_and_another_file_under_it_is_refused(api: Api, tmp_path: Path) -> None:
    first, other = (zipped(write_pair_bundle(tmp_path / name, floor=floor)) for name, floor in (("a", 0.7), ("b", 0.6)))
    answers = []
    for _ in range(2):
        first.seek(0)
        answers.append(upload(api, first, key="k"))
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    assert answers[1].headers["idempotency-replayed"] == "true"
    assert upload(api, other, key="k").json()["code"] == "invalid"


def test_models_and_versions_are_listed_and_paged(api: Api) -> None:
    models = api.client.get(URL).json()["items"]
    assert [(m["name"], m["versions"], m["newest"]["number"]) for m in models] == [("pairs", 2, 2)]
    first = api.client.get(f"{URL}/pairs/versions", params={"limit": 1}).json()
    rest = api.client.get(f"{URL}/pairs/versions", params={"limit": 1, "cursor": first["next_cursor"]}).json()
    assert [v["number"] for v in first["items"] + rest["items"]] == [2, 1]
    assert rest["next_cursor"] is None


def test_a_version_shows_what_devices_will_verify(api: Api) -> None:
    version = api.client.get(f"{URL}/pairs/versions/1").json()
    assert (version["state"], version["golden_limit"], version["golden_samples"]) == ("published", 0.9, 64)
    assert {artifact["role"] for artifact in version["artifacts"]} >= {"model", "golden", "vocab"}


def test_publishing_signs_once_and_again_changes_nothing(api: Api) -> None:
    for _ in range(2):
        answer = api.client.post(f"{URL}/pairs/versions/2/publish")
        assert (answer.status_code, answer.json()["state"]) == (200, "published")
    digest = answer.json()["manifest_sha256"]
    assert api.context.tuf_repo.read(f"targets/pairs/{digest}.2.json") is not None


def test_a_revoked_version_leaves_the_list_and_its_aliases(api: Api) -> None:
    tag = api.client.get(f"{URL}/pairs").headers["etag"]
    api.client.put(f"{URL}/pairs/aliases/champion", json={"version": 1}, headers={"If-Match": tag})
    for _ in range(2):
        answer = api.client.post(f"{URL}/pairs/versions/1/revoke", json={"reason": "wrong labels"})
        assert (answer.status_code, answer.json()["state"]) == (200, "revoked")
    assert api.client.get(f"{URL}/pairs").json()["champion"] is None
    assert api.client.post(f"{URL}/pairs/versions/1/publish").json()["code"] == "conflict"


def test_a_version_that_was_never_published_can_be_revoked(api: Api) -> None:
    assert api.client.post(f"{URL}/pairs/versions/2/revoke").json()["state"] == "revoked"


def test_an_alias_names_a_published_version_or_none(api: Api) -> None:
    url = f"{URL}/pairs/aliases/champion"
    assert api.client.put(url, json={"version": 1}).status_code == 428
    tag = {"If-Match": api.client.get(f"{URL}/pairs").headers["etag"]}
    assert api.client.put(url, json={"version": 2}, headers=tag).json()["code"] == "conflict"
    named = api.client.put(url, json={"version": 1}, headers=tag)
    assert named.json()["champion"] == 1
    assert api.client.put(url, json={"version": None}, headers=tag).status_code == 412
    assert (
        api.client.put(url, json={"version": None}, headers={"If-Match": named.headers["etag"]}).json()["champion"]
        is None
    )
    assert api.client.put(f"{URL}/pairs/aliases/boss", json={"version": 1}, headers=tag).status_code == 422


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/none"), ("GET", "/none/versions"), ("GET", "/pairs/versions/9"), ("POST", "/pairs/versions/9/publish")],
)
def test_what_is_not_there_is_not_found(api: Api, method: str, path: str) -> None:
    assert api.client.request(method, URL + path).json()["code"] == "not_found"


@pytest.mark.parametrize("number", ["0", "-1", "x", "9999999999999999999"])
def test_a_version_number_that_is_none_is_invalid(api: Api, number: str) -> None:
    assert api.client.get(f"{URL}/pairs/versions/{number}").status_code == 422
