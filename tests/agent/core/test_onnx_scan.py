"""Model files that must not reach the runtime."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.support.models import linear_version
from wavegate_agent.core.onnx_scan import MAX_DEPTH, scan
from wavegate_shared.errors import DeviceError


def outcome(data: bytes) -> str:
    try:
        scan(memoryview(data))
    except DeviceError as refused:
        return refused.code
    return "passes"


def model(
    nodes: list[onnx.NodeProto] | None = None,
    initializers: list[onnx.TensorProto] | None = None,
    domains: tuple[str, ...] = ("",),
) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph(nodes or [helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y], initializers or [])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(domain, 17) for domain in domains])


def outside(tensor: onnx.TensorProto) -> onnx.TensorProto:
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    return tensor


def weight(name: str = "w") -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(1, dtype=np.float32), name)


def subgraph(nodes: list[onnx.NodeProto], initializers: list[onnx.TensorProto] | None = None) -> onnx.GraphProto:
    out = helper.make_tensor_value_info("s", TensorProto.FLOAT, [1])
    return helper.make_graph(nodes, "sub", [], [out], initializers or [])


def deep(levels: int) -> onnx.NodeProto:
    services = helper.make_node("Identity", ["x"], ["s"])
    for _ in range(levels):
        branch = subgraph([services])
        services = helper.make_node("If", ["c"], ["s"], then_branch=branch, else_branch=branch)
    return services


def with_function(domain: str, services: onnx.NodeProto) -> onnx.ModelProto:
    made = model()
    made.functions.append(helper.make_function(domain, "f", ["x"], ["y"], [services], [helper.make_opsetid("", 17)]))
    return made


def bad_sparse() -> onnx.ModelProto:
    made = model()
    sparse = made.graph.sparse_initializer.add()
    sparse.values.CopyFrom(outside(weight("v")))
    return made


BAD: dict[str, Callable[[], onnx.ModelProto]] = {
    "external initializer": lambda: model(initializers=[outside(weight())]),
    "external attribute": lambda: model([helper.make_node("Constant", [], ["y"], value=outside(weight()))]),
    "external in a subgraph": lambda: model(
        [helper.make_node("If", ["c"], ["y"], then_branch=subgraph([], [outside(weight())]), else_branch=subgraph([]))]
    ),
    "external sparse values": bad_sparse,
    "foreign domain of a services": lambda: model([helper.make_node("Evil", ["x"], ["y"], domain="evil.ops")]),
    "foreign domain imported": lambda: model(domains=("", "evil.ops")),
    "foreign domain in a function": lambda: with_function("", helper.make_node("E", ["x"], ["y"], domain="evil")),
    "function of a foreign domain": lambda: with_function("evil", helper.make_node("Identity", ["x"], ["y"])),
    "nested too deep": lambda: model([deep(MAX_DEPTH + 1)]),
    "no opset": lambda: model(domains=()),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_breaks_a_rule_is_refused(case: str) -> None:
    with pytest.raises(DeviceError) as refused:
        scan(memoryview(BAD[case]().SerializeToString()))
    assert refused.value.code == "model_rejected"


def test_a_plain_model_passes_and_is_counted(tmp_path: Path) -> None:
    directory, _ = linear_version(tmp_path, 1)
    found = scan(memoryview((directory / "model.onnx").read_bytes()))
    assert (found.nodes, found.tensors, found.opset, found.domains) == (2, 1, 17, {""})


def test_nesting_up_to_the_limit_passes() -> None:
    assert scan(memoryview(model([deep(3)]).SerializeToString())).nodes > 3


def test_a_manifest_may_allow_a_domain() -> None:
    data = memoryview(BAD["foreign domain of a services"]().SerializeToString())
    assert "evil.ops" in scan(data, domains=["evil.ops"]).domains


def test_limits_on_nodes_and_opset() -> None:
    data = memoryview(model([helper.make_node("Identity", ["x"], ["y"]) for _ in range(5)]).SerializeToString())
    with pytest.raises(DeviceError, match="more than 4 nodes"):
        scan(data, max_nodes=4)
    with pytest.raises(DeviceError, match="opset 17"):
        scan(data, max_opset=16)


@pytest.mark.parametrize("data", [b"", b"garbage", b"\xff" * 50, b"\x0b\x0c", b"\x3a\xff\xff\xff\xff\x0f"])
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(DeviceError) as refused:
        scan(memoryview(data))
    assert refused.value.code == "model_rejected"


def test_every_truncation_is_refused_or_harmless() -> None:
    data = model(initializers=[weight()]).SerializeToString()
    for cut in range(len(data)):
        assert outcome(data[:cut]) in ("passes", "model_rejected")


@settings(max_examples=200)
@given(st.binary(max_size=400))
def test_no_bytes_make_it_fail_otherwise(data: bytes) -> None:
    assert outcome(data) in ("passes", "model_rejected")
