"""Two bad versions, made from a good bundle by editing its graph. Used by the demo and by tests.

`refused_bundle`: the classes are exchanged, so the golden set fails on the device before anything is swapped.
`treacherous_bundle`: right and quick on everything the golden set holds; wrong and slow as soon as one token, which only
live traffic has, is in the input. No check before live traffic can see it: this is what the gate is for.
"""

from pathlib import Path

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

from wavegate_server.adapters.files.bundles import SPEC_FILE, Bundle, write_bundle
from wavegate_server.core.bundle_spec import artifact_roles
from wavegate_shared.errors import UsageError

__all__ = ["refused_bundle", "treacherous_bundle"]

_MATRIX = 192


def refused_bundle(good: Bundle, out: Path) -> None:
    """Write a bundle whose model answers the opposite of `good`."""
    model, output = _open(good)
    model.graph.node.append(helper.make_node("Neg", ["wavegate_true_output"], [output], name="wavegate_opposite"))
    _save(good, model, out, "exchanged classes")


def treacherous_bundle(good: Bundle, out: Path, *, token_id: int, extra_rounds: int = 30) -> None:
    """Write a bundle that is wrong and slow when `token_id` is in `input_ids`.

    Args:
        good: bundle with a graph input `input_ids`.
        out: directory to write.
        token_id: the telling token.
        extra_rounds: matrix products (192 x 192) done for nothing when it is there.
    """
    model, output = _open(good)
    graph = model.graph
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(token_id, dtype=np.int64), "wavegate_token"),
            numpy_helper.from_array(np.array(extra_rounds, dtype=np.int64), "wavegate_rounds"),
            numpy_helper.from_array(np.full((_MATRIX, _MATRIX), 1 / _MATRIX, dtype=np.float32), "wavegate_matrix"),
            numpy_helper.from_array(np.array(True), "wavegate_true"),
            numpy_helper.from_array(np.array(1.0, dtype=np.float32), "wavegate_one"),
            numpy_helper.from_array(np.array(2.0, dtype=np.float32), "wavegate_two"),
        ]
    )
    graph.node.extend(_detector(output))
    _save(good, model, out, "treacherous")


def _detector(output: str) -> list[onnx.NodeProto]:
    """Nodes that flip the output's sign and burn time when the token is there; flag is 1.0 then, else 0.0."""
    return [
        helper.make_node("Equal", ["input_ids", "wavegate_token"], ["wavegate_hits"]),
        helper.make_node("Cast", ["wavegate_hits"], ["wavegate_hit_values"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["wavegate_hit_values"], ["wavegate_flag"], keepdims=0),
        helper.make_node("Cast", ["wavegate_flag"], ["wavegate_flag_count"], to=TensorProto.INT64),
        helper.make_node("Mul", ["wavegate_flag_count", "wavegate_rounds"], ["wavegate_trips"]),
        helper.make_node(
            "Loop", ["wavegate_trips", "wavegate_true", "wavegate_matrix"], ["wavegate_burnt"], body=_burner()
        ),
        helper.make_node("ReduceMean", ["wavegate_burnt"], ["wavegate_burnt_mean"], keepdims=0),
        helper.make_node("Mul", ["wavegate_burnt_mean", "wavegate_flag"], ["wavegate_burnt_zero"]),
        helper.make_node("Mul", ["wavegate_flag", "wavegate_two"], ["wavegate_flag_twice"]),
        helper.make_node("Sub", ["wavegate_one", "wavegate_flag_twice"], ["wavegate_sign"]),
        helper.make_node("Mul", ["wavegate_true_output", "wavegate_sign"], ["wavegate_signed"]),
        helper.make_node("Mul", ["wavegate_burnt_zero", "wavegate_flag"], ["wavegate_shift"]),
        helper.make_node("Add", ["wavegate_signed", "wavegate_shift"], [output]),
    ]


def _burner() -> onnx.GraphProto:
    shape = [_MATRIX, _MATRIX]
    return helper.make_graph(
        [
            helper.make_node("MatMul", ["wavegate_in", "wavegate_matrix"], ["wavegate_out"]),
            helper.make_node("Identity", ["wavegate_go"], ["wavegate_go_on"]),
        ],
        "wavegate_burner",
        [
            helper.make_tensor_value_info("wavegate_trip", TensorProto.INT64, []),
            helper.make_tensor_value_info("wavegate_go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("wavegate_in", TensorProto.FLOAT, shape),
        ],
        [
            helper.make_tensor_value_info("wavegate_go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("wavegate_out", TensorProto.FLOAT, shape),
        ],
    )


def _open(good: Bundle) -> tuple[onnx.ModelProto, str]:
    """The model with its first output renamed, and the name the new last node has to give."""
    if good.spec.stored != "float32":
        raise UsageError("bundle_invalid", "make bad versions from a bundle stored as float32")
    model = onnx.load(str(good.model_path))
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["wavegate_true_output" if name == output else name for name in node.output]
        node.input[:] = ["wavegate_true_output" if name == output else name for name in node.input]
    return model, output


def _save(good: Bundle, model: onnx.ModelProto, out: Path, recipe: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    spec = good.spec
    onnx.save(model, str(out / spec.model_file))
    document = yaml.safe_load((good.directory / SPEC_FILE).read_text(encoding="utf-8"))
    document.update(recipe=recipe, comparison=[], parent=None, plan=None, source=None, train=None)
    names = set(artifact_roles(spec)) | {entry.file for entry in (spec.calib, spec.eval) if entry}
    files = {name: out / name if name == spec.model_file else good.path(name) for name in sorted(names)}
    write_bundle(out, document, files)
