"""Each operation beside an independent reference, and hostile requests."""

import base64
import io
import struct
import sys
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wavegate_shared.errors import DeviceError, UsageError
from wavegate_shared.preprocess import build_post, build_pre, decoded_inputs


def no_files(name: str) -> bytes:
    raise FileNotFoundError(name)


def run(steps: list[dict[str, Any]], value: Any) -> NDArray[Any]:
    arrays: dict[str, Any] = {"image": value}
    for step in build_pre([{"input": "image", **step} for step in steps], no_files):
        step(arrays)
    made: NDArray[Any] = arrays[next(iter(arrays))]
    return made


def photo(height: int = 23, width: int = 31, seed: int = 0) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[0:height, 0:width]
    smooth = np.stack([rows * 7 % 256, columns * 5 % 256, (rows + columns) * 3 % 256], axis=-1)
    return (smooth + np.random.default_rng(seed).integers(0, 20, smooth.shape)).clip(0, 255).astype(np.uint8)


def encoded(pixels: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    file = io.BytesIO()
    pillow.fromarray(pixels).save(file, kind)
    return file.getvalue()


def files(*raw: bytes) -> NDArray[Any]:
    made = np.empty(len(raw), dtype=object)
    made[:] = raw
    return made


def test_scale_normalise_and_transpose_equal_torch() -> None:
    torch = pytest.importorskip("torch", reason="the extra [distil] is not installed")
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    steps: list[dict[str, Any]] = [
        {"op": "scale", "divisor": 255},
        {"op": "normalise", "mean": mean, "std": std},
        {"op": "transpose"},
    ]
    pixels = np.stack([photo(seed=1), photo(seed=2)])
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255)
    expected = (tensor - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    got = run(steps, pixels)
    assert got.dtype == np.float32
    assert np.array_equal(got, expected.numpy())


def test_normalise_by_hand() -> None:
    got = run([{"op": "normalise", "mean": [127], "std": [128]}], np.array([[[0, 127, 255]]], np.uint8))
    assert got.tolist() == [[[-127 / 128, 0.0, 1.0]]]


def test_grey_images_get_a_channel() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    assert run([{"op": "transpose"}], pixels).tolist() == [[pixels[0].tolist()]]


@pytest.mark.parametrize(("size", "top", "left"), [((4, 4), 2, 1), ((3, 5), 2, 0), ((7, 6), 0, 0), ((4, 5), 2, 0)])
def test_crop_takes_the_middle_as_torchvision_does(size: tuple[int, int], top: int, left: int) -> None:
    pixels = np.arange(42, dtype=np.uint8).reshape(1, 7, 6)  # margins of a half round to even
    expected = pixels[:, top : top + size[0], left : left + size[1]]
    assert np.array_equal(run([{"op": "crop", "size": size}], pixels), expected)


def test_channels_turn_red_into_blue() -> None:
    pixels = photo()[None]
    turned = run([{"op": "channels", "from": "RGB", "to": "BGR"}], pixels)
    assert np.array_equal(turned[..., 0], pixels[..., 2])
    assert np.array_equal(turned[..., 1], pixels[..., 1])


def test_letterbox_keeps_the_ratio_and_fills_the_rest() -> None:
    pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    pixels = photo(20, 40)
    got = run([{"op": "resize", "size": [32, 32], "mode": "letterbox", "fill": 114}], pixels[None])[0]
    inner = np.asarray(pillow.fromarray(pixels).resize((32, 16), pillow.Resampling.BILINEAR))
    assert np.array_equal(got[8:24], inner)
    assert (got[:8] == 114).all()
    assert (got[24:] == 114).all()


def test_stretch_ignores_the_ratio() -> None:
    pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    pixels = photo(20, 40)
    expected = np.asarray(pillow.fromarray(pixels).resize((16, 24), pillow.Resampling.BILINEAR))
    assert np.array_equal(run([{"op": "resize", "size": [24, 16]}], pixels[None])[0], expected)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_decode_equals_pillow(kind: str) -> None:
    pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    raw = encoded(photo(), kind)
    expected = np.asarray(pillow.open(io.BytesIO(raw)).convert("RGB"))
    assert np.array_equal(run([{"op": "decode"}], files(raw))[0], expected)
    assert np.array_equal(run([{"op": "decode"}], np.array([raw]))[0], expected)  # as an npz holds them
    text = np.array([base64.b64encode(raw).decode()], dtype=object)  # as JSON carries them
    assert np.array_equal(run([{"op": "decode"}], text)[0], expected)


def test_decode_to_grey_gives_no_channel_axis() -> None:
    assert run([{"op": "decode", "mode": "L"}], files(encoded(photo()))).shape == (1, 23, 31)


def test_images_of_two_sizes_come_together_at_resize_and_not_without() -> None:
    both = files(encoded(photo(10, 20)), encoded(photo(30, 15)))
    assert run([{"op": "decode"}, {"op": "resize", "size": [8, 8]}, {"op": "scale", "divisor": 255}], both).shape == (
        2,
        8,
        8,
        3,
    )
    with pytest.raises(UsageError, match="different sizes"):
        run([{"op": "decode"}, {"op": "scale", "divisor": 255}], both)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is this large."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("sides", [(5000, 5000), (20_000, 20_000), (60_000, 60_000)])
def test_an_image_bomb_is_refused_before_it_is_unpacked(sides: tuple[int, int]) -> None:
    pytest.importorskip("PIL", reason="Pillow is not installed")
    for kind in ("error", "ignore"):
        with warnings.catch_warnings():
            warnings.simplefilter(kind)
            with pytest.raises(UsageError) as refused:
                run([{"op": "decode"}], files(bomb(*sides)))
        assert refused.value.code == "too_large"


@pytest.mark.parametrize(
    "shape", [(1, 1, 60_000, 3), (2_000, 2, 2, 3), (1, 4_097, 4_097)], ids=["thin", "many", "large"]
)
def test_requests_that_would_grow_beyond_measure_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError) as refused:
        run([{"op": "resize", "size": [224, 224]}], np.broadcast_to(np.uint8(7), shape))
    assert refused.value.code == "too_large"


def test_a_lower_cap_of_the_version_holds() -> None:
    with pytest.raises(UsageError) as refused:
        run([{"op": "decode", "max_pixels": 100}], files(encoded(photo())))
    assert refused.value.code == "too_large"


@pytest.mark.parametrize("damage", [b"", b"GIF89a....", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0" + b"\0" * 50])
def test_what_is_no_image_is_the_clients_mistake(damage: bytes) -> None:
    pytest.importorskip("PIL", reason="Pillow is not installed")
    with pytest.raises(UsageError) as refused:
        run([{"op": "decode"}], files(damage))
    assert refused.value.code == "invalid"


def test_damaged_files_never_raise_anything_else() -> None:
    raw = bytearray(encoded(photo()))
    rng = np.random.default_rng(4)
    for _ in range(300):
        spoilt = bytearray(raw)
        for place in rng.integers(8, len(raw), 3):
            spoilt[place] = rng.integers(256)
        try:
            run([{"op": "decode"}], files(bytes(spoilt[: rng.integers(8, len(raw) + 1)])))
        except UsageError:
            continue


def test_without_pillow_the_device_lacks_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DeviceError) as refused:
        build_pre([{"op": "decode", "input": "image"}], no_files)
    assert refused.value.code == "incompatible"
    assert "[image]" in refused.value.detail


@pytest.mark.parametrize(
    ("step", "value"),
    [
        ({"op": "crop", "size": [50, 50]}, photo()[None]),
        ({"op": "crop", "size": [5, 5]}, photo()),  # (23, 31, 3) would be 23 images of 31 x 3
        ({"op": "resize", "size": [5, 5]}, np.zeros((1, 0, 5), np.uint8)),
        ({"op": "resize", "size": [5, 5]}, np.zeros((1, 5, 5, 7), np.uint8)),
        ({"op": "resize", "size": [5, 5]}, np.zeros((1, 5, 5), np.int64)),
        ({"op": "resize", "size": [5, 5]}, np.array([["a"]])),
        ({"op": "channels", "from": "RGB", "to": "BGR"}, np.zeros((1, 5, 5), np.uint8)),
        ({"op": "normalise", "mean": [0, 0], "std": [1, 1]}, photo()[None]),
        ({"op": "scale", "divisor": 2}, np.array(["a"])),
        ({"op": "decode"}, np.zeros((1, 3), np.uint8)),
        ({"op": "decode"}, np.empty(0, object)),
        ({"op": "decode"}, np.array(["not base64!"], dtype=object)),
    ],
)
def test_what_does_not_fit_an_operation_is_refused(step: dict[str, Any], value: Any) -> None:
    if step["op"] == "decode":
        pytest.importorskip("PIL", reason="Pillow is not installed")
    with pytest.raises(UsageError):
        run([step], value)


def test_a_missing_input_is_named() -> None:
    (step,) = build_pre([{"op": "scale", "input": "image", "divisor": 2}], no_files)
    with pytest.raises(UsageError, match="image is missing"):
        step({"other": np.zeros(1)})


def test_a_result_may_have_a_name_of_its_own() -> None:
    arrays: dict[str, Any] = {"image": np.zeros((1, 2, 2), np.uint8)}
    (step,) = build_pre([{"op": "transpose", "input": "image", "output": "x"}], no_files)
    step(arrays)
    assert {name: array.shape for name, array in arrays.items()} == {"x": (1, 1, 2, 2)}


VOCAB = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\na\nb\n\xe2\x80\xa8\nc\n"  # a line separator is a token, not the end of a line


def wordpiece(value: Any) -> list[list[int]]:
    step = {"op": "wordpiece", "input": "text", "vocab": "v", "max_length": 8, "outputs": {"input_ids": "INT32"}}
    arrays: dict[str, Any] = {"text": value}
    for one in build_pre([step], lambda _: VOCAB):
        one(arrays)
    assert arrays["input_ids"].dtype == np.int32
    rows: list[list[int]] = [[token for token in row if token] for row in arrays["input_ids"].tolist()]
    return rows


def test_wordpiece_takes_texts_and_pairs() -> None:
    assert wordpiece(np.array(["a c"])) == [[2, 4, 7, 3]]
    assert wordpiece(np.array([["a c"], ["b"]])) == [[2, 4, 7, 3], [2, 5, 3]]
    assert wordpiece(np.array([["a", "c"]], dtype=object)) == [[2, 4, 3, 7, 3]]


def test_texts_without_end_are_refused() -> None:
    with pytest.raises(UsageError) as refused:
        wordpiece(np.array([["a " * 80_000, "b"]], dtype=object))
    assert refused.value.code == "too_large"


def test_only_decoded_inputs_are_files() -> None:
    steps: list[dict[str, Any]] = [{"op": "decode", "input": "image"}, {"op": "scale", "input": "x", "divisor": 2}]
    assert decoded_inputs(steps) == {"image"}


def test_softmax_stays_finite_on_large_values() -> None:
    (step,) = build_post([{"op": "softmax", "output": "logits"}])
    arrays = {"logits": np.array([[1000.0, 1001.0]], np.float32)}
    step(arrays)
    assert np.allclose(arrays["logits"], [[0.26894143, 0.7310586]])


def steps_of(*best: int, classes: int = 4) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[list(best)]


def test_ctc_reads_the_best_class_of_each_step_once_and_no_blank() -> None:
    (step,) = build_post([{"op": "ctc", "output": "y"}])
    arrays = {
        "y": np.stack([steps_of(0, 1, 1, 0, 1, 2, 0), steps_of(3, 3, 0, 0, 0, 0, 0), steps_of(0, 0, 0, 0, 0, 0, 0)])
    }
    step(arrays)
    assert arrays["y"].tolist() == [[1, 1, 2], [3, -1, -1], [-1, -1, -1]]
    assert arrays["y"].dtype == np.int64


def test_ctc_with_another_blank_and_steps_first() -> None:
    (step,) = build_post([{"op": "ctc", "output": "y", "blank": 3, "layout": "tnc"}])
    arrays = {"y": np.stack([steps_of(0, 0, 3, 0), steps_of(1, 2, 2, 3)], axis=1)}
    step(arrays)
    assert arrays["y"].tolist() == [[0, 0], [1, 2]]


@pytest.mark.parametrize("arrays", [{"z": np.zeros((1, 2, 3))}, {"y": np.zeros((2, 3))}])
def test_a_post_operation_that_does_not_fit_the_graph_says_so(arrays: dict[str, np.ndarray]) -> None:
    (step,) = build_post([{"op": "ctc", "output": "y"}])
    with pytest.raises(DeviceError) as caught:
        step(arrays)
    assert caught.value.code == "incompatible"
