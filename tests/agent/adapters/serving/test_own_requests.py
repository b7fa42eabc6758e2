"""How a worker knows the agent's own requests again."""

import io

import numpy as np
import pytest

from wavegate_agent.adapters.serving.connections import Response
from wavegate_agent.adapters.serving.own_requests import OwnRequests
from wavegate_agent.core.http1 import RequestHead, parse_response
from wavegate_agent.core.oip import OWN_FIELD, parse_request
from wavegate_shared.errors import UsageError


def head(token: str | None) -> RequestHead:
    fields = {} if token is None else {OWN_FIELD.lower(): token}
    return RequestHead("POST", "/v2/models/toy/infer", fields, 0, keep_alive=True, wants_continue=False)


def written(own: OwnRequests) -> tuple[str, int, bytes]:
    body = io.BytesIO()
    files = np.array([[b"\x89PNG\xff"]], dtype=object)
    token, length = own.write({"x": np.array([[1.0, 2.0]], dtype=np.float32), "file": files}, body)
    return token, length, body.getvalue()


def test_a_sample_becomes_a_request_that_the_api_reads() -> None:
    _, length, body = written(OwnRequests())
    request = parse_request(body, length)
    assert [(tensor.name, tensor.datatype, tensor.shape) for tensor in request.inputs] == [
        ("x", "FP32", (1, 2)),
        ("file", "BYTES", (1, 1)),
    ]
    assert request.id == ""


def test_a_token_is_good_once() -> None:
    own = OwnRequests()
    token, _, _ = written(own)
    assert own.recognise(head(token))
    with pytest.raises(UsageError):
        own.recognise(head(token))


def test_a_request_without_a_token_is_an_applications() -> None:
    own = OwnRequests()
    written(own)
    assert not own.recognise(head(None))
    assert not own.recognise(None)


@pytest.mark.parametrize("token", ["", "0" * 32, "guessed"])
def test_an_application_cannot_hide_its_requests(token: str) -> None:
    own = OwnRequests()
    written(own)
    with pytest.raises(UsageError) as refused:
        own.recognise(head(token))
    assert refused.value.code == "invalid"


def test_tokens_whose_request_never_came_are_forgotten() -> None:
    own = OwnRequests()
    first, _, _ = written(own)
    for _ in range(4):
        last, _, _ = written(own)
    assert own.recognise(head(last))
    with pytest.raises(UsageError):
        own.recognise(head(first))


def test_the_answer_carries_the_time_it_took() -> None:
    answer = OwnRequests().answer(Response(500, [], [b"{}", b"more"], keep_alive=False), 12.5)
    fields = parse_response(bytes(answer.pieces[0])).fields
    assert (answer.status, answer.close, fields["x-wavegate-own-latency-ms"]) == (500, True, "12.500")
    assert [bytes(piece) for piece in answer.pieces[1:]] == [b"{}", b"more"]
    assert answer.written is None
