"""Several models of a device behind one socket: each request reaches its model, and one model's life does not touch another's."""

import json
from pathlib import Path

import pytest

from tests.support.models import linear_version
from tests.support.serving import Clients, Raw, kill, request_body, two_hosts, wait_for_exits
from tests.support.waiting import wait_until


def infer_path(model: str) -> str:
    """Where a model's requests go."""
    return f"/v2/models/{model}/infer"


def whole_request(model: str) -> bytes:
    """One request as bytes."""
    body = request_body()
    return f"POST {infer_path(model)} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize("tcp", [False, True])
def test_one_connection_reaches_each_model(tmp_path: Path, *, tcp: bool) -> None:
    with (
        two_hosts(tmp_path) as (toy, _),
        Raw(("127.0.0.1", toy.tcp_port or 0) if tcp else tmp_path / "infer.sock") as raw,
    ):
        for model in ("toy", "other", "other", "toy", "other"):
            status, _, answer = raw.post(infer_path(model), request_body())
            assert (status, answer["model_name"]) == (200, model)
        assert raw.get("/v2/models/toy")[2]["name"] == "toy"
        assert raw.get("/v2/models/other/versions/1/ready")[0] == 200


def test_the_index_lists_every_model_whoever_answers(tmp_path: Path) -> None:
    expected = [{"name": name, "version": "1", "state": "READY", "reason": ""} for name in ("other", "toy")]
    with two_hosts(tmp_path), Raw(tmp_path / "infer.sock") as raw:
        for model in ("toy", "other"):
            assert raw.post(infer_path(model), request_body())[0] == 200  # the connection is at that model's worker now
            assert raw.post("/v2/repository/index", b"")[::2] == (200, expected)
        status, _, problem = raw.post(infer_path("third"), request_body())
        assert (status, problem["code"]) == (404, "not_found")
        assert "'other', 'toy' is" in problem["error"]


def test_requests_sent_in_one_go_are_answered_in_their_order(tmp_path: Path) -> None:
    models = ["toy", "other", "toy", "other"]
    with two_hosts(tmp_path), Raw(tmp_path / "infer.sock") as raw:
        raw.send(b"".join(whole_request(model) for model in models))
        assert [json.loads(raw.read()[2])["model_name"] for _ in models] == models


@pytest.mark.parametrize("cut", [1, 20, 60, -1])
def test_a_request_that_comes_in_two_pieces_is_sent_on_whole(tmp_path: Path, cut: int) -> None:
    with two_hosts(tmp_path):
        for model in ("toy", "other"):
            with Raw(tmp_path / "infer.sock") as raw:
                data = whole_request(model)
                raw.send(data[:cut])
                for other in ("toy", "other"):  # both workers have been round their loops since
                    with Raw(tmp_path / "infer.sock") as second:
                        assert second.post(infer_path(other), request_body())[0] == 200
                raw.send(data[cut:])
                status, _, body = raw.read()
                assert (status, json.loads(body)["model_name"]) == (200, model)


def test_one_models_swaps_and_reverts_drop_no_request_of_either(tmp_path: Path) -> None:
    versions = [linear_version(tmp_path, number, model="other") for number in (1, 2, 3)]
    with two_hosts(tmp_path) as (toy, other):
        with (
            Clients(tmp_path / "infer.sock", 3) as steady,
            Clients(tmp_path / "infer.sock", 2, model="other") as updated,
        ):
            for turn in range(6):
                other.load_candidate(*versions[(turn + 1) % 3])
                other.swap()
                if turn % 3 == 2:
                    other.revert()
                other.release_standby()
        counts = {stats.version: stats.requests for stats in toy.collect()}
    assert (steady.faults, updated.faults) == ([], [])
    assert (steady.retries, updated.retries) == (0, 0)
    assert (steady.versions, updated.versions) == ({1}, {1, 2, 3})
    assert counts == {1: steady.answered}


def test_a_crash_of_one_worker_leaves_the_other_models_connections_alone(tmp_path: Path) -> None:
    with two_hosts(tmp_path) as (toy, other), Raw(tmp_path / "infer.sock") as raw:
        assert raw.post(infer_path("toy"), request_body())[0] == 200  # held by the worker of `toy` now
        kill(other.live_pid)
        wait_for_exits(other)
        assert raw.post(infer_path("toy"), request_body())[0] == 200
        status, _, answer = raw.post(infer_path("other"), request_body())  # waits in the inbox for the worker's return
        assert (status, answer["model_name"]) == (200, "other")
        assert toy.poll() == []


def test_a_model_that_is_taken_away_is_not_found_any_more(tmp_path: Path) -> None:
    with two_hosts(tmp_path) as (_, other):
        other.close()
        with Raw(tmp_path / "infer.sock") as raw:

            def names() -> list[str]:
                return [model["name"] for model in raw.post("/v2/repository/index", b"")[2]]

            wait_until(lambda: names() == ["toy"], "the news")
            status, _, problem = raw.post(infer_path("other"), request_body())
            assert (status, problem["code"]) == (404, "not_found")
