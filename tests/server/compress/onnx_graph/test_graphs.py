"""Mending graphs: opset, external data, names, the output layer."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tests.support.graphs import conv_net, stripes
from wavegate_server.compress.onnx_graph import graphs
from wavegate_shared.errors import UsageError


def run(model: onnx.ModelProto) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": stripes(1, 9)[0]})[0])


def test_an_old_opset_is_upgraded_and_computes_the_same() -> None:
    old = conv_net(opset=11)
    new = graphs.upgrade(old)
    assert (graphs.opset(old), graphs.opset(new)) == (11, graphs.TARGET_OPSET)
    assert np.allclose(run(old), run(new), atol=1e-5)


def test_a_new_opset_is_left_alone() -> None:
    model = conv_net(opset=17)
    assert graphs.upgrade(model) is model


def test_external_data_is_taken_along_from_the_same_folder(tmp_path: Path) -> None:
    whole = conv_net()
    expected = run(whole)
    onnx.save(whole, str(tmp_path / "m.onnx"), save_as_external_data=True, location="w.bin", size_threshold=0)
    graphs.save(graphs.load(tmp_path / "m.onnx"), tmp_path / "one.onnx")
    (tmp_path / "w.bin").unlink()
    assert np.array_equal(run(graphs.load(tmp_path / "one.onnx")), expected)


@pytest.mark.parametrize("place", ["../w.bin", "/etc/passwd"])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(b"x" * 100_000)
    model = conv_net()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UsageError, match="outside its folder"):
        graphs.load(folder / "m.onnx")


def test_missing_external_data_is_named(tmp_path: Path) -> None:
    onnx.save(conv_net(), str(tmp_path / "m.onnx"), save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(UsageError, match=r"w\.bin, which is not there"):
        graphs.load(tmp_path / "m.onnx", weights=False)


def test_every_node_gets_a_name_of_its_own() -> None:
    model = conv_net()
    for node in model.graph.node:
        node.name = "same"
    graphs.name_nodes(model)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)


def test_the_output_layer_and_the_blocks() -> None:
    model = conv_net()
    assert graphs.output_layer(model) == ["gemm"]
    assert graphs.blocks(model) == [["conv1"], ["conv2"], ["gemm"]]
    assert len(graphs.blocks(model, most=3)) <= 3
