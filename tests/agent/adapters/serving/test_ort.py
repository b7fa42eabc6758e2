"""The runtime behind its door."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.models import linear_version
from wavegate_agent.adapters.serving.ort import Session, runtime_version
from wavegate_shared.errors import DeviceError


def test_a_model_is_described_and_run(tmp_path: Path) -> None:
    directory, _ = linear_version(tmp_path, 1)
    session = Session(directory / "model.onnx", intra_threads=1, providers=[])
    assert session.inputs == {"x": np.float32}
    assert session.shapes == {"x": [-1, 4]}
    assert session.outputs == ["logits"]
    assert session.providers == ["CPUExecutionProvider"]
    assert session.run({"x": np.ones((2, 4), dtype=np.float32)})[0].tolist() == [[-4, 4], [-4, 4]]
    assert runtime_version()[0].isdigit()


def test_a_missing_provider_is_said_not_replaced(tmp_path: Path) -> None:
    directory, _ = linear_version(tmp_path, 1)
    with pytest.raises(DeviceError, match="TensorrtExecutionProvider") as refused:
        Session(directory / "model.onnx", intra_threads=1, providers=["TensorrtExecutionProvider"])
    assert refused.value.code == "incompatible"


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x08\x08"])
def test_what_is_not_a_model_does_not_load(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(DeviceError) as refused:
        Session(tmp_path / "m.onnx", intra_threads=1, providers=[])
    assert refused.value.code == "load_failed"


def test_a_run_that_fails_names_the_reason(tmp_path: Path) -> None:
    directory, _ = linear_version(tmp_path, 1)
    session = Session(directory / "model.onnx", intra_threads=1, providers=[])
    with pytest.raises(DeviceError) as failed:
        session.run({"x": np.ones((1, 5), dtype=np.float32)})
    assert failed.value.code == "inference_failed"
