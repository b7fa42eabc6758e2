"""The Open Inference Protocol on a real worker: every endpoint, and a stable code for every mistake."""

import gzip
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.models import linear_version, text_version
from tests.support.serving import Raw, request_body, running_host

INFER = "/v2/models/toy/infer"


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("linear")
    with running_host(directory) as host:
        host.start_live(*linear_version(directory, 3))
        yield directory / "infer.sock"


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("text")
    with running_host(directory) as host:
        host.start_live(*text_version(directory, 1))
        yield directory / "infer.sock"


@pytest.mark.parametrize(
    "path",
    ["/v2", "/v2/", "/v2/health/live", "/v2/health/ready", "/v2/models/toy", "/v2/models/toy/versions/3",
     "/v2/models/toy/ready", "/v2/models/toy/versions/3/ready"],
)  # fmt: skip
def test_what_can_be_asked_about(linear: Path, path: str) -> None:
    with Raw(linear) as raw:
        status, fields, _ = raw.get(path)
    assert status == 200
    assert fields["x-wavegate-model-version"] == "3"


def test_metadata(linear: Path) -> None:
    with Raw(linear) as raw:
        assert raw.get("/v2")[2]["extensions"] == ["binary_tensor_data"]
        model = raw.get("/v2/models/toy")[2]
    assert (model["name"], model["versions"]) == ("toy", ["3"])
    assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert model["parameters"]["labels"] == ["no", "yes"]


def test_an_answer_names_version_and_digest(linear: Path) -> None:
    with Raw(linear) as raw:
        status, fields, answer = raw.post(INFER, request_body(1, 2, 3, 4, request_id="q"))
        assert raw.post("/v2/models/toy/versions/3/infer", request_body())[0] == 200
    assert (status, answer["id"], answer["model_name"], answer["model_version"]) == (200, "q", "toy", "3")
    assert answer["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [1, 2], "data": [-10.0, 10.0]}]
    assert answer["parameters"]["manifest_sha256"] == fields["x-wavegate-manifest-sha256"]
    assert len(fields["x-wavegate-manifest-sha256"]) == 64


def test_binary_tensors_both_ways(linear: Path) -> None:
    header = json.dumps(
        {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 4], "parameters": {"binary_data_size": 32}}],
            "outputs": [{"name": "logits", "parameters": {"binary_data": True}}],
        }
    ).encode()
    values = struct.pack("<8f", 1, 1, 1, 1, -1, -1, -1, -1)
    with Raw(linear) as raw:
        raw.send(
            f"POST {INFER} HTTP/1.1\r\nInference-Header-Content-Length: {len(header)}\r\n"
            f"Content-Length: {len(header) + 32}\r\n\r\n".encode()
            + header
            + values
        )
        status, fields, body = raw.read()
    cut = int(fields["inference-header-content-length"])
    assert (status, fields["content-type"]) == (200, "application/octet-stream")
    assert struct.unpack("<4f", body[cut:]) == (-4, 4, 4, -4)
    assert json.loads(body[:cut])["outputs"][0]["shape"] == [2, 2]


def tensor(**changes: Any) -> bytes:
    return json.dumps(
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]} | changes]}
    ).encode()


@pytest.mark.parametrize(
    ("body", "fields", "status", "code", "says"),
    [
        (b"{not json", {}, 400, "invalid", "not valid"),
        (tensor(name="y"), {}, 400, "invalid", "expected"),
        (tensor(datatype="FP64"), {}, 400, "invalid", "expected FP32"),
        (tensor(shape=[4]), {}, 400, "invalid", "expected FP32"),
        (tensor(shape=[1, 3], data=[1, 2, 3]), {}, 400, "invalid", "expected FP32"),
        (tensor()[:-1] + b', "outputs": [{"name": "nope"}]}', {}, 400, "invalid", "no output"),
        (tensor(), {"Inference_Header_Content_Length": "x"}, 400, "invalid", "not a number"),
        (tensor(), {"Inference_Header_Content_Length": "9999"}, 400, "invalid", "larger than the body"),
        (tensor(), {"Content_Encoding": "gzip"}, 400, "invalid", "no gzip data"),
        (gzip.compress(tensor(), mtime=0)[:-4], {"Content_Encoding": "gzip"}, 400, "invalid", "ends too early"),
        (gzip.compress(tensor(), mtime=0) + b"x", {"Content_Encoding": "gzip"}, 400, "invalid", "bytes behind"),
        (gzip.compress(b" " * (80 << 20), mtime=0), {"Content_Encoding": "gzip"}, 413, "invalid", "larger than"),
        (tensor(), {"Content_Encoding": "br"}, 415, "invalid", "gzip and deflate are"),
    ],
)
def test_a_bad_request_is_answered_with_its_fault(
    linear: Path, body: bytes, fields: dict[str, str], status: int, code: str, says: str
) -> None:
    with Raw(linear) as raw:
        got, _, problem = raw.post(INFER, body, **fields)
        assert (got, problem["code"]) == (status, code)
        assert says in problem["error"]
        assert raw.post(INFER, request_body())[0] == 200, "the connection still serves"


def _raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("coding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", _raw_deflate), ("GZIP", gzip.compress)],
)
def test_compressed_bodies_are_read(linear: Path, coding: str, pack: Callable[[bytes], bytes]) -> None:
    with Raw(linear) as raw:
        plain = raw.post(INFER, request_body(request_id="z"))
        assert raw.post(INFER, pack(request_body(request_id="z")), Content_Encoding=coding)[2] == plain[2]
        feedback = pack(b'{"id": "z", "label": 1}')
        assert raw.post("/v2/models/toy/feedback", feedback, Content_Encoding=coding)[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/v2/models/other", 404, "not_found"),
        ("GET", "/v2/models/toy/versions/4", 404, "not_found"),
        ("GET", "/v2/models/toy/config", 404, "not_found"),
        ("GET", INFER, 405, "invalid"),
        ("POST", "/v2/health/ready", 405, "invalid"),
        ("DELETE", "/v2/models/toy", 405, "invalid"),
    ],
)
def test_a_wrong_path_or_method(linear: Path, method: str, path: str, status: int, code: str) -> None:
    with Raw(linear) as raw:
        raw.send(f"{method} {path} HTTP/1.1\r\nContent-Length: 0\r\n\r\n".encode())
        got, _, body = raw.read()
    assert (got, json.loads(body)["code"]) == (status, code)


def feedback(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def test_labels_join_by_request_id(linear: Path) -> None:
    path = "/v2/models/toy/feedback"
    two = {"name": "x", "datatype": "FP32", "shape": [2, 4], "data": [1] * 4 + [-1] * 4}
    with Raw(linear) as raw:
        raw.post(INFER, json.dumps({"id": "two", "inputs": [two]}).encode())
        assert raw.post(path, feedback(id="two", label=1))[2]["code"] == "invalid"
        _, _, answer = raw.post(path, feedback(id="two", label=[1, 1]))
        assert (answer["scores"], answer["model_version"], answer["repeated"]) == ([1.0, 0.0], "3", False)
        assert raw.post(path, feedback(id="two", label=[1, 1]))[2]["repeated"] is True
        assert raw.post(path, feedback(id="never", label=1))[2]["code"] == "not_found"
        assert raw.post(path, feedback(id="two"))[2]["code"] == "invalid"
        assert raw.post(INFER, request_body())[0] == 200


def test_text_pairs_and_raw_graph_inputs_give_the_same(text: Path) -> None:
    words = {"name": "text", "datatype": "BYTES", "shape": [1, 2], "data": ["ab", "c"]}
    ids = [
        {"name": name, "datatype": "INT64", "shape": [1, 6], "data": [0] * 6}
        for name in ("input_ids", "token_type_ids")
    ]
    mask = {"name": "attention_mask", "datatype": "INT64", "shape": [1, 6], "data": [1] * 6}
    with Raw(text) as raw:
        first = raw.post(INFER, json.dumps({"inputs": [words]}).encode())[2]["outputs"]
        second = raw.post(INFER, json.dumps({"inputs": [*ids, mask]}).encode())[2]["outputs"]
    assert first == second
    assert first[0]["data"] == [2.0, -2.0]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"shape": [2], "data": ["a", "b"]}, "invalid"),
        ({"shape": [1, 3], "data": ["a", "b", "c"]}, "invalid"),
        ({"shape": [0, 2], "data": []}, "invalid"),
        ({"data": ["a" * 200_000, "b"]}, "too_large"),
    ],
)
def test_text_that_is_not_pairs_is_refused(text: Path, changes: dict[str, Any], code: str) -> None:
    words = {"name": "text", "datatype": "BYTES", "shape": [1, 2], "data": ["a", "b"]} | changes
    with Raw(text) as raw:
        status, _, problem = raw.post(INFER, json.dumps({"inputs": [words]}).encode())
    assert (status, problem["code"]) == (413 if code == "too_large" else 400, code)


def test_a_request_the_model_cannot_run_is_an_error_of_the_version(text: Path) -> None:
    shapes = {"input_ids": 6, "attention_mask": 5, "token_type_ids": 6}
    bad = [{"name": n, "datatype": "INT64", "shape": [1, w], "data": [1] * w} for n, w in shapes.items()]
    bad[2]["shape"], bad[2]["data"] = [1, 4], [1] * 4
    with Raw(text) as raw:
        status, _, problem = raw.post(INFER, json.dumps({"inputs": bad}).encode())
    assert (status, problem["code"]) == (500, "inference_failed")
