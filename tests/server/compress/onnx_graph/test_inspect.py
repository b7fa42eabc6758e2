"""What a file is said to be, on real graphs of each family."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.support.bundles import save_model
from tests.support.graphs import conv_net, model_of
from wavegate_server.compress.onnx_graph.inspect import inspect_file, inspect_model
from wavegate_shared.errors import UsageError

ADDRESS = Path(__file__).parents[4] / "deploy" / "models" / "address-match" / "bundle" / "model.onnx"


def value(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def test_the_shipped_address_model_is_a_transformer_with_its_figures() -> None:
    found = inspect_file(ADDRESS)
    assert (found.family, found.head, found.opset) == ("transformer", "classification", 17)
    assert found.parameters == 2_494_850
    assert found.output_layer == ["/classifier/Gemm"]
    assert {"input_ids[0]", "input_ids[1]"} <= set(found.dynamic)
    assert found.recipes[0].recipe == "int8-dynamic-per-channel"
    # two layers of 6 heads: projections 4*64*384*192, attention 2*64*64*192, feed-forward 2*64*384*768; then the head
    layer = 4 * 64 * 384 * 192 + 2 * 64 * 64 * 192 + 2 * 64 * 384 * 768
    assert found.macs == 2 * layer + 384 * 2
    assert found.flops == 2 * found.macs


def test_a_convolutional_net() -> None:
    found = inspect_model(conv_net())
    assert (found.family, found.head, found.quantised) == ("cnn", "classification", False)
    assert found.macs == 16 * 16 * 16 * 25 + 32 * 16 * 16 * 16 * 9 + 32 * 4
    assert found.dynamic == []
    assert sum(block.parameters for block in found.blocks) == 16 * 25 + 32 * 16 * 9 + 32 * 4
    tried, skipped = ({planned.recipe for planned in group} for group in (found.recipes, found.skipped))
    assert "int8-static-per-channel" in tried
    assert "int8-dynamic-per-channel" in skipped


def test_a_net_over_looked_up_words_has_no_attention(tmp_path: Path) -> None:
    save_model(tmp_path / "m.onnx")
    assert inspect_file(tmp_path / "m.onnx").family == "mlp"


def test_a_single_number_out_is_a_regression_head() -> None:
    nodes = [helper.make_node("Gemm", ["x", "w"], ["y"])]
    model = model_of(nodes, [value("x", "n", 8)], [value("y", "n", 1)], {"w": np.ones((8, 1), np.float32)})
    assert (inspect_model(model).family, inspect_model(model).head) == ("mlp", "regression")


def test_boxes_make_a_detector() -> None:
    model = conv_net()
    model.graph.node.append(helper.make_node("NonMaxSuppression", ["boxes", "scores"], ["picked"]))
    found = inspect_model(model)
    assert found.family == "detector"
    assert any("box selection stays float" in note for note in found.notes)
    assert "int8-static-whole" in {planned.recipe for planned in found.skipped}


def test_recurrent_layers_name_the_family_before_convolutions_do() -> None:
    model = conv_net()
    model.graph.node.append(helper.make_node("LSTM", ["a", "b", "c"], ["d"], hidden_size=4))
    assert inspect_model(model).family == "recurrent"


def test_a_quantised_model_has_nothing_to_do() -> None:
    model = conv_net()
    model.graph.node.append(helper.make_node("QuantizeLinear", ["logits", "s"], ["q"]))
    found = inspect_model(model)
    assert found.quantised
    assert found.recipes == []
    assert "already quantised: nothing to do" in found.notes


def test_nodes_inside_if_are_counted_and_said_to_stay() -> None:
    inner = helper.make_graph([helper.make_node("Identity", ["logits"], ["same"])], "then", [], [value("same", 1, 4)])
    model = conv_net()
    model.graph.node.append(helper.make_node("If", ["which"], ["out"], then_branch=inner, else_branch=inner))
    found = inspect_model(model)
    assert found.subgraph_nodes == 2
    assert "2 nodes inside If or Loop stay as they are" in found.notes


def test_a_graph_that_lives_inside_if_has_nothing_to_do_with_the_reason() -> None:
    """It listed recipes to be tried beside 0 parameters."""
    lower = conv_net().graph
    model = conv_net()
    del model.graph.node[:], model.graph.initializer[:], model.graph.output[:]
    del lower.input[:]
    model.graph.input.append(helper.make_tensor_value_info("which", TensorProto.BOOL, []))
    model.graph.node.append(helper.make_node("If", ["which"], ["out"], then_branch=lower, else_branch=lower))
    model.graph.output.append(value("out", 1, 4))
    found = inspect_model(model)
    assert (found.parameters, found.recipes) == (0, [])
    assert found.subgraph_parameters > 10_000
    reason = (
        f"nothing to do: its {found.subgraph_parameters:,} parameters lie inside If or Loop, which stay as they are"
    )
    assert {planned.why for planned in found.skipped} == {reason}
    assert any(f"with {found.subgraph_parameters:,} parameters" in note for note in found.notes)


def test_a_graph_without_weights_has_nothing_to_do() -> None:
    model = conv_net()
    del model.graph.node[:], model.graph.initializer[:], model.graph.output[:]
    model.graph.node.append(helper.make_node("Relu", [model.graph.input[0].name], ["out"]))
    model.graph.output.append(value("out", 1, 3, 8, 8))
    found = inspect_model(model)
    assert found.recipes == []
    assert {planned.why for planned in found.skipped} == {"nothing to do: no node of the graph has a weight"}


def test_external_weights_are_not_read(tmp_path: Path) -> None:
    onnx.save(conv_net(), str(tmp_path / "m.onnx"), save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "w.bin").write_bytes(b"")  # still there, but nothing in it
    found = inspect_file(tmp_path / "m.onnx")
    assert found.external
    assert found.parameters > 5000


@pytest.mark.parametrize("content", [b"", b"\x00 no model", b"<html>"])
def test_what_is_no_onnx_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        inspect_file(tmp_path / "m.onnx")
    assert caught.value.code == "bundle_invalid"
