"""A public client of the protocol works unchanged: Triton's Python HTTP client."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from tests.support.models import linear_version, text_version
from tests.support.serving import running_host

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    triton = pytest.importorskip(
        "tritonclient.http", reason="tritonclient[http] is not installed (it brings gevent, so it is no dev dependency)"
    )


@pytest.mark.parametrize("binary", [True, False])
def test_numbers(tmp_path: Path, binary: bool) -> None:
    with running_host(tmp_path) as host:
        host.start_live(*linear_version(tmp_path, 1))
        client = triton.InferenceServerClient(f"127.0.0.1:{host.tcp_port}")
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("toy")
        assert client.is_model_ready("toy", "1")
        assert client.get_server_metadata()["name"] == "wavegate"
        assert client.get_model_metadata("toy")["inputs"][0]["datatype"] == "FP32"
        given = triton.InferInput("x", [2, 4], "FP32")
        given.set_data_from_numpy(np.ones((2, 4), dtype=np.float32), binary_data=binary)
        wanted = triton.InferRequestedOutput("logits", binary_data=binary)
        result = client.infer("toy", [given], outputs=[wanted], request_id="t")
        assert result.as_numpy("logits").tolist() == [[-4, 4], [-4, 4]]
        assert result.get_response()["id"] == "t"
        with pytest.raises(triton.InferenceServerException, match="expected FP32"):
            client.infer("toy", [triton.InferInput("x", [1, 4], "FP64").set_data_from_numpy(np.ones((1, 4)))])
        client.close()


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compressed_requests_and_an_answer_asked_for_compressed(tmp_path: Path, coding: str) -> None:
    with running_host(tmp_path) as host:
        host.start_live(*linear_version(tmp_path, 1))
        client = triton.InferenceServerClient(f"127.0.0.1:{host.tcp_port}")
        given = triton.InferInput("x", [2, 4], "FP32")
        given.set_data_from_numpy(np.ones((2, 4), dtype=np.float32))
        result = client.infer(
            "toy", [given], request_compression_algorithm=coding, response_compression_algorithm=coding
        )
        assert result.as_numpy("logits").tolist() == [[-4, 4], [-4, 4]]
        client.close()


def test_text(tmp_path: Path) -> None:
    with running_host(tmp_path) as host:
        host.start_live(*text_version(tmp_path, 1))
        client = triton.InferenceServerClient(f"127.0.0.1:{host.tcp_port}")
        given = triton.InferInput("text", [1, 2], "BYTES")
        given.set_data_from_numpy(np.array([["ab", "c"]], dtype=object))
        assert client.infer("toy", [given]).as_numpy("logits").tolist() == [[2, -2]]
        client.close()
