"""Small real ONNX models in version directories, good and broken, for tests of the data plane."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from wavegate_shared.chunks import CHUNK_BYTES, Chunk
from wavegate_shared.manifest import Artifact, Golden, Manifest, Pre, Requires, TensorSpec, encode_manifest
from wavegate_shared.metrics import Metric

Array = npt.NDArray[Any]

VOCAB = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    *"abcdefghijklmnopqrstuvwxyz",
    *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
]
FEATURES = 4


def linear_version(
    root: Path,
    version: int,
    *,
    flip: bool = False,
    nan: bool = False,
    hang: bool = False,
    model_bytes: bytes | None = None,
    hidden: int = 0,
    layers: int = 0,
    samples: int = 24,
    requires: Requires | None = None,
    model: str = "toy",
) -> tuple[Path, Manifest]:
    """A classifier on four numbers: class 1 where their sum is positive.

    Args:
        root: where the version's directory is made.
        version: its number; also added to nothing, so equal versions answer equally.
        flip: answers the wrong class (the golden set fails).
        nan: answers NaN.
        hang: its first run never ends.
        model_bytes: these bytes instead of a model.
        hidden: width of extra layers that cost time and bytes and change nothing.
        layers: how many of them.
        samples: golden samples.
        requires: what its manifest demands.
        model: its name; another one's versions lie in a directory of their own.
    """
    x, labels = _points(samples)
    graph = model_bytes
    if graph is None:
        graph = _linear_graph(flip=flip, nan=nan, hang=hang, hidden=hidden, layers=layers)
    directory = root / ("" if model == "toy" else model) / f"v{version}"
    directory.mkdir(parents=True, exist_ok=True)
    _save_golden(directory, {"input.x": x, "label": labels, "reference": _reference(x)})
    (directory / "model.onnx").write_bytes(graph)
    return _finish(
        directory,
        version,
        model=model,
        inputs=[TensorSpec("x", "FP32", [-1, FEATURES])],
        files={"model.onnx": "model", "golden.npz": "golden"},
        samples=samples,
        requires=requires or Requires(),
    )


def text_version(root: Path, version: int, *, pre: Sequence[Pre] | None = None) -> tuple[Path, Manifest]:
    """A pair classifier behind `wordpiece`: class 1 where the pair has more than 8 tokens."""
    directory = root / f"t{version}"
    directory.mkdir(parents=True, exist_ok=True)
    pairs = [["a", "b"], ["abcdefgh", "hgfedcba"], ["abc", "abc"], ["zyxwvuts", "a b c d"]]
    golden = {"input.text": np.array(pairs), "label": np.array([0, 1, 1, 1]), "reference": _counts([5, 19, 9, 15])}
    _save_golden(directory, golden)
    (directory / "vocab.txt").write_text("\n".join(VOCAB) + "\n", encoding="utf-8")
    (directory / "model.onnx").write_bytes(_text_graph())
    declared = Pre(
        op="wordpiece",
        options={
            "input": "text",
            "vocab": "vocab.txt",
            "max_length": 48,
            "lowercase": True,
            "outputs": {"input_ids": "INT64", "attention_mask": "INT64", "token_type_ids": "INT64"},
        },
    )
    return _finish(
        directory,
        version,
        inputs=[TensorSpec("text", "BYTES", [-1, 2])],
        files={"model.onnx": "model", "golden.npz": "golden", "vocab.txt": "vocab"},
        samples=len(pairs),
        pre=[declared] if pre is None else list(pre),
    )


def image_version(root: Path, version: int, *, files: Sequence[bytes] = ()) -> tuple[Path, Manifest]:
    """Class 1 where a 4 x 4 grey picture is bright.

    Args:
        root: where the version's directory is made.
        version: its number.
        files: image files as the golden set, a dark one and a bright one; without them the API takes UINT8 pictures.
    """
    directory = root / f"i{version}"
    directory.mkdir(parents=True, exist_ok=True)
    pixels = np.stack([np.full((4, 4), 0, np.uint8), np.full((4, 4), 255, np.uint8)])
    golden = np.array(list(files)) if files else pixels
    reference = np.array([[1, -1], [-1, 1]], np.float32)
    _save_golden(directory, {"input.image": golden, "label": np.array([0, 1]), "reference": reference})
    weights = numpy_helper.from_array(np.array([[-1, 1]], np.float32), "w")
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
    ]
    graph = _model(nodes, [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 4, 4])], [weights])
    (directory / "model.onnx").write_bytes(graph)
    steps: list[tuple[str, dict[str, Any]]] = [
        ("normalise", {"mean": [127.5], "std": [127.5]}),
        ("transpose", {}),
    ]
    if files:
        steps = [("decode", {"mode": "L"}), ("resize", {"size": [4, 4]}), *steps]
    return _finish(
        directory,
        version,
        inputs=[TensorSpec("image", "BYTES", [-1]) if files else TensorSpec("image", "UINT8", [-1, 4, 4])],
        files={"model.onnx": "model", "golden.npz": "golden"},
        samples=2,
        pre=[Pre(op=op, options={"input": "image", **options}) for op, options in steps],
    )


def _finish(
    directory: Path,
    version: int,
    *,
    inputs: list[TensorSpec],
    files: dict[str, str],
    samples: int,
    requires: Requires | None = None,
    pre: list[Pre] | None = None,
    model: str = "toy",
) -> tuple[Path, Manifest]:
    manifest = Manifest(
        schema=1,
        model=model,
        version=version,
        created="2026-01-01T00:00:00Z",
        task="classification",
        artifacts=[artifact(directory / name, role) for name, role in files.items()],
        inputs=inputs,
        outputs=[TensorSpec("logits", "FP32", [-1, 2])],
        pre=pre or [],
        labels=["no", "yes"],
        metric=Metric("accuracy"),
        golden=Golden(artifact="golden.npz", limit=0.9, samples=samples),
        requires=requires or Requires(),
    )
    (directory / "manifest.json").write_bytes(encode_manifest(manifest))
    return directory, manifest


def artifact(path: Path, role: str) -> Artifact:
    """The manifest's entry of a file."""
    data = path.read_bytes()
    pieces = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
    chunks = [Chunk(hashlib.sha256(piece).hexdigest()[:32], len(piece)) for piece in pieces]
    return Artifact(
        name=path.name, role=role, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data), chunks=chunks
    )


def _save_golden(directory: Path, arrays: dict[str, Array]) -> None:
    np.savez(directory / "golden.npz", allow_pickle=False, **arrays)


def _points(samples: int) -> tuple[Array, Array]:
    x = np.random.default_rng(7).normal(size=(samples, FEATURES)).astype(np.float32)
    return x, (x.sum(axis=1) > 0).astype(np.int64)


def _reference(x: Array) -> Array:
    total = x.sum(axis=1, keepdims=True)
    return np.concatenate([-total, total], axis=1).astype(np.float32)


def _counts(tokens: list[int]) -> Array:
    total = np.array(tokens, dtype=np.float32)[:, None] - 8
    return np.concatenate([-total, total], axis=1)


def _linear_graph(*, flip: bool, nan: bool, hang: bool, hidden: int, layers: int) -> bytes:
    sign = -1.0 if flip else 1.0
    weights = np.tile(np.array([[-sign, sign]], dtype=np.float32), (FEATURES, 1))
    if nan:
        weights[:] = np.nan
    initializers = [numpy_helper.from_array(weights, "w")]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["exact"])]
    last = "exact"
    rng = np.random.default_rng(1)
    if layers:
        initializers.append(numpy_helper.from_array(rng.normal(size=(2, hidden)).astype(np.float32), "wide"))
        initializers.append(numpy_helper.from_array(np.zeros((hidden, 2), dtype=np.float32), "narrow"))
        nodes.append(helper.make_node("MatMul", ["exact", "wide"], ["h0"]))
        for index in range(layers):
            square = (rng.normal(size=(hidden, hidden)) / hidden).astype(np.float32)
            initializers.append(numpy_helper.from_array(square, f"s{index}"))
            nodes.append(helper.make_node("MatMul", [f"h{index}", f"s{index}"], [f"h{index + 1}"]))
        nodes.append(helper.make_node("MatMul", [f"h{layers}", "narrow"], ["nothing"]))
        nodes.append(helper.make_node("Add", ["exact", "nothing"], ["sum"]))
        last = "sum"
    if hang:
        nodes += _endless(initializers)
        nodes.append(helper.make_node("Add", [last, "spun"], ["spun_sum"]))
        last = "spun_sum"
    nodes.append(helper.make_node("Identity", [last], ["logits"]))
    return _model(nodes, [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES])], initializers)


def _endless(initializers: list[onnx.TensorProto]) -> list[onnx.NodeProto]:
    initializers.append(numpy_helper.from_array(np.array(2**62, dtype=np.int64), "trips"))
    initializers.append(numpy_helper.from_array(np.array(True), "go"))
    initializers.append(numpy_helper.from_array(np.zeros((1, 1), dtype=np.float32), "zero"))
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["goes_on"]),
            helper.make_node("Identity", ["state"], ["next_state"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [1, 1]),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next_state", TensorProto.FLOAT, [1, 1]),
        ],
    )
    return [helper.make_node("Loop", ["trips", "go", "zero"], ["spun"], body=body)]


def _text_graph() -> bytes:
    axes = numpy_helper.from_array(np.array([1], dtype=np.int64), "axes")
    eight = numpy_helper.from_array(np.array([8.0], dtype=np.float32), "eight")
    nodes = [
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["mask", "axes"], ["count"], keepdims=1),
        helper.make_node("Cast", ["input_ids"], ["ids"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["token_type_ids"], ["types"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["ids", "ids"], ["zero_ids"]),
        helper.make_node("Mul", ["zero_ids", "types"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros", "axes"], ["zero"], keepdims=1),
        helper.make_node("Add", ["count", "zero"], ["tokens"]),
        helper.make_node("Sub", ["tokens", "eight"], ["more"]),
        helper.make_node("Neg", ["more"], ["less"]),
        helper.make_node("Concat", ["less", "more"], ["logits"], axis=1),
    ]
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "width"]) for name in names]
    return _model(nodes, inputs, [axes, eight])


def _model(
    nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], initializers: list[onnx.TensorProto]
) -> bytes:
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])
    graph = helper.make_graph(nodes, "toy", inputs, [output], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def bundle_version(root: Path, version: int, bundle: Path) -> tuple[Path, Manifest]:
    """A real bundle as a device holds it: weights expanded, manifest made as the registry makes it."""
    from wavegate_server.adapters.files import onnx_files
    from wavegate_server.adapters.files.bundles import open_bundle
    from wavegate_server.core.bundle_spec import artifact_roles, build_manifest

    directory = root / f"b{version}"
    directory.mkdir(parents=True)
    with open_bundle(bundle) as opened:
        spec = opened.spec
        facts = onnx_files.prepare(opened.model_path, directory / spec.model_file, stored=spec.stored)
        roles = artifact_roles(spec)
        for name in roles:
            if name != spec.model_file:
                (directory / name).write_bytes(opened.path(name).read_bytes())
        with np.load(directory / spec.golden.file) as golden:
            samples = int(golden["label"].shape[0])
        manifest = build_manifest(
            spec,
            version=version,
            created="2026-01-01T00:00:00+00:00",
            artifacts=[artifact(directory / name, role) for name, role in roles.items()],
            samples=samples,
            facts={"opset": facts.opset, "domains": facts.domains},
            parent=None,
        )
    (directory / "manifest.json").write_bytes(encode_manifest(manifest))
    return directory, manifest
