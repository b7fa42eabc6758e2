"""The Open Inference Protocol in JSON and binary: round trips, and every refusal names its rule."""

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavegate_agent.core.oip import (
    MAX_ID_CHARS,
    OutputTensor,
    error_body,
    pack_strings,
    parse_feedback,
    parse_request,
    render_request,
    render_response,
    status_of,
    unpack_strings,
)
from wavegate_shared.errors import DeviceError, UsageError


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]} | changes


def body(*tensors: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": list(tensors or [tensor()]), **more}).encode()


def test_a_json_request_with_nested_rows() -> None:
    request = parse_request(body(tensor(shape=[2, 2], data=[[1, 2], [3, 4.5]]), id="r1"))
    assert request.id == "r1"
    assert request.inputs[0].data == [1, 2, 3, 4.5]
    assert request.inputs[0].shape == (2, 2)


def test_binary_tensors_are_views_in_order() -> None:
    raw = struct.pack("<2f", 1.0, 2.0)
    first = tensor(parameters={"binary_data_size": 8})
    second = tensor(name="y", datatype="INT8", shape=[3], parameters={"binary_data_size": 3})
    header = json.dumps({"inputs": [first, second]}).encode()
    request = parse_request(header + raw + b"\x01\x02\x03", len(header))
    assert [bytes(one.data) for one in request.inputs if isinstance(one.data, memoryview)] == [raw, b"\x01\x02\x03"]


def test_binary_output_is_asked_for_the_request_or_one_output() -> None:
    assert parse_request(body(parameters={"binary_data_output": True})).binary
    chosen = parse_request(body(outputs=[{"name": "a", "parameters": {"binary_data": True}}, {"name": "b"}]))
    assert [(out.name, out.binary) for out in chosen.outputs] == [("a", True), ("b", False)]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not valid"),
        (b"{", "not valid"),
        (b"[]", "not valid"),
        (b'{"inputs": []}', "1 to"),
        (b'{"inputs": [{"name": "x", "shape": [1], "data": [1]}]}', "datatype"),
        (body(tensor(), tensor()), "given twice"),
        (body(tensor(data=[1])), "elements"),
        (body(tensor(data=None)), "data is missing"),
        (body(tensor(data=[[1], 2])), "mixed"),
        (body(tensor(data=["a", 2])), "not a FP32"),
        (body(tensor(data=[True, 2])), "not a FP32"),
        (body(tensor(datatype="INT8", data=[1, 300])), "not a INT8"),
        (body(tensor(datatype="UINT8", data=[1, -1])), "not a UINT8"),
        (body(tensor(datatype="BYTES", data=[1, 2])), "not a BYTES"),
        (body(tensor(datatype="FP16")), "FP16"),
        (body(tensor(datatype="BF16")), "BF16"),
        (body(tensor(shape=[-1, 2])), "shape"),
        (body(tensor(shape=[2**40, 1], data=[])), "shape"),
        (body(tensor(shape=[1] * 9, data=[1])), "shape"),
        (body(tensor(parameters={"binary_data_size": 8})), "fewer were sent"),
        (body(tensor(parameters={"binary_data_size": "8"})), "not a size"),
        (body(id="i" * (MAX_ID_CHARS + 1)), "id is longer"),
        (body() + b"trailing", "not valid"),
        (b'{"inputs":' + b"[" * 5000 + b"]" * 5000 + b"}", "not valid"),
    ],
)
def test_a_malformed_request_names_its_fault(data: bytes, says: str) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        parse_request(data)
    assert refused.value.code == "invalid"
    assert status_of(refused.value) == 400


@pytest.mark.parametrize("length", [-1, 10_000])
def test_a_header_length_beyond_the_body_is_refused(length: int) -> None:
    with pytest.raises(UsageError, match="larger than the body"):
        parse_request(body(), length)


def test_bytes_behind_the_last_tensor_are_refused() -> None:
    data = body()
    with pytest.raises(UsageError, match="more binary data"):
        parse_request(data + b"xx", len(data))


def test_binary_data_must_fit_the_shape() -> None:
    header = json.dumps({"inputs": [tensor(parameters={"binary_data_size": 4})]}).encode()
    with pytest.raises(UsageError, match="its shape needs 8"):
        parse_request(header + b"1234", len(header))


@given(st.lists(st.text(max_size=20), max_size=8))
def test_strings_round_trip(texts: list[str]) -> None:
    clean = [text.encode("utf-8", "ignore").decode() for text in texts]
    assert unpack_strings(memoryview(pack_strings(clean)), len(clean)) == clean


@pytest.mark.parametrize("data", [b"\x01", b"\x05\x00\x00\x00ab", b"\x01\x00\x00\x00\xff", b"", pack_strings("ab")])
def test_damaged_strings_are_refused(data: bytes) -> None:
    with pytest.raises(UsageError):
        unpack_strings(memoryview(data), 1, "t")


def test_what_is_rendered_is_parsed_back() -> None:
    length, pieces = render_request([OutputTensor("x", "INT64", [2], raw=struct.pack("<2q", 5, 6))], request_id="a")
    request = parse_request(b"".join(pieces), length)
    assert request.id == "a"
    assert request.binary
    assert bytes(request.inputs[0].data) == struct.pack("<2q", 5, 6)


def test_a_response_mixes_json_and_binary_outputs() -> None:
    request = parse_request(body(id="q"))
    outputs = [OutputTensor("a", "FP32", [1], values=[1.5]), OutputTensor("b", "INT8", [2], raw=b"\x01\x02")]
    header, pieces = render_response(request, "m", 3, {"version": "3"}, outputs)
    document = json.loads(bytes(pieces[0]))
    assert header == len(pieces[0])
    assert document["model_version"] == "3"
    assert document["id"] == "q"
    assert document["outputs"][1]["parameters"] == {"binary_data_size": 2}
    assert bytes(pieces[1]) == b"\x01\x02"
    assert render_response(request, "m", 3, {}, outputs[:1])[0] is None


@pytest.mark.parametrize(("label", "expected"), [("1", (1.0,)), ("0.5", (0.5,)), ("[1, 0]", (1.0, 0.0))])
def test_feedback_takes_one_label_or_a_list(label: str, expected: tuple[float, ...]) -> None:
    assert parse_feedback(b'{"id": "a", "label": ' + label.encode() + b"}").labels == expected


@pytest.mark.parametrize(
    "data", [b"{}", b'{"id": "", "label": 1}', b'{"id": "a", "label": []}', b'{"id": "a", "label": "1"}']
)
def test_malformed_feedback_is_refused(data: bytes) -> None:
    with pytest.raises(UsageError):
        parse_feedback(data)


def test_errors_carry_text_and_code() -> None:
    assert json.loads(error_body("not_found", "no")) == {"error": "no", "code": "not_found"}
    assert status_of(DeviceError("inference_failed")) == 500
    assert status_of(DeviceError("not_ready")) == 503
    assert status_of(UsageError("too_large")) == 413
