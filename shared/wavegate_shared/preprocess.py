"""The declared operations, run: one implementation for the device's worker and for the compressor.

What a model sees belongs to its training, so both sides must give equal arrays, and arrays equal to the training script's.
Numpy only; Pillow, for `decode`, is imported where a version asks for it. Never imported by the agent's control process.
Which operations there are, and their options, stands in `operations`.
"""

import base64
import binascii
import io
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from wavegate_shared.errors import DeviceError, UsageError
from wavegate_shared.operations import (
    MAX_PIXELS,
    Channels,
    Crop,
    Ctc,
    Decode,
    Normalise,
    Operation,
    Resize,
    Scale,
    Softmax,
    Transpose,
    WordPieceOp,
    parse_post,
    parse_pre,
)
from wavegate_shared.resample import resized
from wavegate_shared.wordpiece import WordPiece

__all__ = ["Array", "ReadFile", "Step", "build_post", "build_pre", "decoded_inputs"]

Array = NDArray[Any]
Step = Callable[[dict[str, Any]], None]
"""Changes the named arrays of one request in place. Between steps, images of unequal sizes are a list of arrays."""
ReadFile = Callable[[str], bytes]
"""The content of a file of the version. Raises OSError."""

_MAX_TEXT_CHARS = 100_000
_MAX_REQUEST_PIXELS = 2 * MAX_PIXELS
_MAX_SIDE = 1 << 15  # resizing takes memory and steps in proportion to a side
_INTEGERS = {"INT64": np.int64, "INT32": np.int32}


def build_pre(steps: Sequence[Mapping[str, Any]], read: ReadFile) -> list[Step]:
    """Declared pre-processing, ready to run.

    Args:
        steps: the operations as declared: `op` and its options.
        read: gives the files they name.

    Raises:
        DeviceError: `incompatible`: an operation or option this release does not know, or Pillow is missing.
        ValueError: an option, or a file it names, cannot work. OSError: a file is missing.
    """
    operations = parse_pre(steps)
    made = [_step(operation, read) for operation in operations]
    return [*made, _one_shape] if any(isinstance(operation, Decode) for operation in operations) else made


def build_post(steps: Sequence[Mapping[str, Any]]) -> list[Step]:
    """Declared post-processing, ready to run. Raises like `build_pre`."""
    return [_after(operation) for operation in parse_post(steps)]


def _after(operation: msgspec.Struct) -> Step:
    match operation:
        case Ctc():
            return partial(_ctc, operation)
        case Softmax():
            return partial(_softmax, operation)
    raise DeviceError("incompatible", f"operation {type(operation).__name__} cannot be run here")


def decoded_inputs(steps: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Inputs that hold an image file's bytes, not text."""
    return frozenset(str(step["input"]) for step in steps if step.get("op") == "decode" and "input" in step)


def _step(operation: Operation, read: ReadFile) -> Step:
    match operation:
        case WordPieceOp():
            return _wordpiece(operation, read)
        case Decode():
            return _decode(operation)
        case Crop():
            return partial(_on_images, operation, partial(_cropped, operation))
        case Resize():
            return partial(_on_images, operation, partial(_resized, operation))
        case Channels():
            return partial(_on_images, operation, _flipped)
        case Scale():
            return partial(_on_numbers, operation, partial(_scaled, operation))
        case Normalise():
            return partial(_on_numbers, operation, partial(_normalised, operation))
        case Transpose():
            return partial(_on_images, operation, _channels_first)
    raise DeviceError("incompatible", f"operation {type(operation).__name__} cannot be run here")


def _taken(arrays: dict[str, Any], name: str) -> Any:
    if name not in arrays:
        raise UsageError("invalid", f"input {name} is missing")
    return arrays.pop(name)


def _wordpiece(operation: WordPieceOp, read: ReadFile) -> Step:
    # a vocabulary has one token a line and may hold characters that str.splitlines would split on
    lines = read(operation.vocab).decode("utf-8").removesuffix("\n").split("\n")
    vocab = [token.removesuffix("\r") for token in lines]
    pieces = WordPiece(vocab, lowercase=operation.lowercase, max_length=operation.max_length)

    def run(arrays: dict[str, Any]) -> None:
        rows = _texts(_taken(arrays, operation.input), operation.input)
        encoded = pieces.encode_pairs(rows) if isinstance(rows[0], tuple) else pieces.encode(rows)
        for output, kind in operation.outputs.items():
            arrays[output] = np.array(getattr(encoded, output), dtype=_INTEGERS[kind])

    return run


def _texts(array: Array, name: str) -> list[Any]:
    """Texts, or pairs of texts as tuples."""
    pairs = array.ndim == 2 and array.shape[1] == 2
    single = array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)
    if not (pairs or single) or array.dtype.kind not in "OU":
        raise UsageError("invalid", f"input {name}: expected BYTES of shape [n, 2] for pairs, or [n]")
    if array.shape[0] == 0:
        raise UsageError("invalid", f"input {name}: no texts")
    flat = [str(text) for text in array.reshape(-1).tolist()]
    if sum(map(len, flat)) > _MAX_TEXT_CHARS * max(1, array.shape[0] // 8):
        raise UsageError("too_large", f"input {name}: texts are too long")
    return list(zip(flat[::2], flat[1::2], strict=True)) if pairs else flat


def _decode(operation: Decode) -> Step:
    try:
        from PIL import Image
    except ImportError as error:
        raise DeviceError(
            "incompatible", "operation 'decode' needs Pillow, which is not installed here: install the extra [image]"
        ) from error
    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)

    def one(raw: bytes) -> Array:
        try:
            with Image.open(io.BytesIO(raw), formats=("JPEG", "PNG")) as image:
                if image.width * image.height > operation.max_pixels:
                    raise UsageError("too_large", f"an image of {image.width} x {image.height} pixels is too large")
                if image.mode.startswith(("I", "F")):
                    raise UsageError("invalid", "an image has more than 8 bits a channel")
                return np.asarray(image.convert(operation.mode))
        except bombs as error:
            raise UsageError("too_large", "an image has too many pixels") from error
        except (OSError, SyntaxError, ValueError, EOFError, OverflowError, struct.error, zlib.error) as error:
            raise UsageError("invalid", f"an image is not a readable JPEG or PNG: {error}") from error

    def run(arrays: dict[str, Any]) -> None:
        files = _files(_taken(arrays, operation.input), operation.input)
        images: list[Array] = []
        for raw in files:
            images.append(one(raw))
            if sum(image.shape[0] * image.shape[1] for image in images) > _MAX_REQUEST_PIXELS:
                raise UsageError("too_large", f"input {operation.input}: too many pixels in one request")
        arrays[operation.result] = _stacked(images)

    return run


def _files(array: Array, name: str) -> list[bytes]:
    """The bytes of each image file; text is their base64, which is how JSON carries them."""
    if array.dtype.kind not in "OSU" or array.size == 0 or array.ndim > 2 or array.size != array.shape[0]:
        raise UsageError("invalid", f"input {name}: expected BYTES of shape [n], one image file each")
    files: list[bytes] = []
    for value in array.reshape(-1).tolist():
        try:
            files.append(value if isinstance(value, bytes) else base64.b64decode(str(value), validate=True))
        except (binascii.Error, ValueError) as error:
            raise UsageError("invalid", f"input {name}: an image sent as text is not base64") from error
    return files


def _stacked(images: list[Array]) -> Array | list[Array]:
    return np.stack(images) if len({image.shape for image in images}) == 1 else images


def _one_shape(arrays: dict[str, Any]) -> None:
    for name, value in arrays.items():
        if isinstance(value, list):
            raise UsageError("invalid", f"input {name}: images of different sizes; send them one by one")


def _on_images(operation: Operation, change: Callable[[Array], Array], arrays: dict[str, Any]) -> None:
    """Run `change` on images (n, h, w) or (n, h, w, c), or on each of a list of images."""
    value = _taken(arrays, operation.input)
    name = operation.input
    if isinstance(operation, Resize) and len(value) * operation.size[0] * operation.size[1] > _MAX_REQUEST_PIXELS:
        raise UsageError("too_large", f"input {name}: {len(value)} images are too many for one request")
    if isinstance(value, list):
        arrays[operation.result] = _stacked([change(_image(one[None], name))[0] for one in value])
    else:
        arrays[operation.result] = change(_image(value, name))


def _image(array: Array, name: str) -> Array:
    good = array.ndim in (3, 4) and 0 not in array.shape and array.dtype.kind in "uif"
    if not good or (array.ndim == 4 and array.shape[3] > 4):
        raise UsageError(
            "invalid", f"input {name}: {array.dtype} {list(array.shape)} is no image [n, h, w(, channels)]"
        )
    if array.dtype.kind != "f" and array.dtype != np.uint8:
        raise UsageError("invalid", f"input {name}: image values are UINT8 or FP32")
    if array.shape[1] * array.shape[2] > MAX_PIXELS or max(array.shape[1:3]) > _MAX_SIDE:
        raise UsageError("too_large", f"input {name}: {array.shape[2]} x {array.shape[1]} pixels are too many")
    return array


def _on_numbers(operation: Operation, change: Callable[[Array], Array], arrays: dict[str, Any]) -> None:
    value = _taken(arrays, operation.input)
    values = value if isinstance(value, list) else [value]
    if any(one.dtype.kind not in "uif" for one in values):
        raise UsageError("invalid", f"input {operation.input}: expected numbers")
    changed = [change(one) for one in values]
    arrays[operation.result] = changed if isinstance(value, list) else changed[0]


def _cropped(operation: Crop, images: Array) -> Array:
    height, width = operation.size
    if images.shape[1] < height or images.shape[2] < width:
        raise UsageError("invalid", f"an image of {images.shape[2]} x {images.shape[1]} is smaller than the crop")
    top, left = round((images.shape[1] - height) / 2), round((images.shape[2] - width) / 2)
    return images[:, top : top + height, left : left + width]


def _resized(operation: Resize, images: Array) -> Array:
    height, width = operation.size
    if operation.mode == "stretch":
        return resized(images, height, width, antialias=operation.antialias)
    ratio = min(height / images.shape[1], width / images.shape[2])
    inner = max(1, round(images.shape[1] * ratio)), max(1, round(images.shape[2] * ratio))
    small = resized(images, *inner, antialias=operation.antialias)
    whole = np.full((len(images), height, width, *images.shape[3:]), operation.fill, dtype=small.dtype)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    whole[:, top : top + inner[0], left : left + inner[1]] = small
    return whole


def _flipped(images: Array) -> Array:
    if images.ndim != 4 or images.shape[3] != 3:
        raise UsageError("invalid", f"images {list(images.shape)} have no three channels")
    return np.ascontiguousarray(images[..., ::-1])


def _scaled(operation: Scale, values: Array) -> Array:
    return values.astype(np.float32) / np.float32(operation.divisor)


def _normalised(operation: Normalise, values: Array) -> Array:
    mean, std = np.array(operation.mean, np.float32), np.array(operation.std, np.float32)
    if len(mean) != 1 and (values.ndim == 0 or values.shape[-1] != len(mean)):
        raise UsageError("invalid", f"{list(values.shape)} does not end in the {len(mean)} values to normalise")
    normal: Array = (values.astype(np.float32) - mean) / std
    return normal


def _channels_first(images: Array) -> Array:
    with_channels = images[..., None] if images.ndim == 3 else images
    return np.ascontiguousarray(with_channels.transpose(0, 3, 1, 2))


def _given(name: str, arrays: dict[str, Any]) -> Array:
    if name not in arrays:
        raise DeviceError("incompatible", f"a post operation wants the output {name!r}, which the graph does not have")
    values: Array = arrays[name]
    return values


def _ctc(operation: Ctc, arrays: dict[str, Any]) -> None:
    values = _given(operation.output, arrays)
    if values.ndim != 3:
        raise DeviceError(
            "incompatible", f"ctc wants steps and classes, output {operation.output} is {list(values.shape)}"
        )
    best = values.argmax(axis=-1).astype(np.int64)
    best = best.T if operation.layout == "tnc" else best
    rows = []
    for steps in best:
        changed = np.concatenate([[True], steps[1:] != steps[:-1]]) if steps.size else np.zeros(0, bool)
        rows.append(steps[changed & (steps != operation.blank)])
    longest = max((row.size for row in rows), default=0)
    read = np.full((len(rows), max(longest, 1)), -1, dtype=np.int64)
    for target, row in zip(read, rows, strict=True):
        target[: row.size] = row
    arrays[operation.output] = read


def _softmax(operation: Softmax, arrays: dict[str, Any]) -> None:
    values = _given(operation.output, arrays)
    raised = np.exp(values - values.max(axis=-1, keepdims=True))
    arrays[operation.output] = raised / raised.sum(axis=-1, keepdims=True)
