"""The declared pre- and post-processing operations as checked structs: what each is called and which options it takes.

A version states them in its manifest, so that they swap together with the weights. The server checks them when a bundle comes
in, the device when it loads a version; both use this table. `preprocess` runs them. Standard library and msgspec only.
docs/concepts.md lists the operations for users; a test compares the two.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from wavegate_shared.errors import DeviceError

__all__ = [
    "MAX_PIXELS",
    "POST_OPS",
    "PRE_OPS",
    "Channels",
    "Crop",
    "Ctc",
    "Decode",
    "Normalise",
    "Operation",
    "Resize",
    "Scale",
    "Softmax",
    "Transpose",
    "WordPieceOp",
    "parse_operation",
    "parse_post",
    "parse_pre",
]

MAX_PIXELS = 1 << 24
"""Most pixels of one decoded image: a small file may unpack to gigabytes."""

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_Side = Annotated[int, msgspec.Meta(ge=1, le=4096)]
_Finite = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]
_Positive = Annotated[float, msgspec.Meta(gt=1e-9, le=1e9)]
_Some = msgspec.Meta(min_length=1, max_length=4096)
_T = TypeVar("_T", bound=msgspec.Struct)


class Operation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all have in common: the array it takes, and the name its result goes by ("" keeps the name)."""

    input: _Name
    output: str = ""

    @property
    def result(self) -> str:
        """The name of its result."""
        return self.output or self.input


class WordPieceOp(Operation, frozen=True, kw_only=True):
    """Texts (n,) or pairs of texts (n, 2) to token ids: BERT's tokenizer."""

    vocab: _Name
    max_length: Annotated[int, msgspec.Meta(ge=3, le=65536)]
    outputs: dict[Literal["input_ids", "attention_mask", "token_type_ids"], Literal["INT64", "INT32"]]
    lowercase: bool = True


class Decode(Operation, frozen=True, kw_only=True):
    """JPEG or PNG bytes (n,) to uint8 images (n, h, w, 3), or (n, h, w) for `L`. Needs Pillow."""

    mode: Literal["RGB", "L"] = "RGB"
    max_pixels: Annotated[int, msgspec.Meta(ge=1, le=MAX_PIXELS)] = MAX_PIXELS


class Crop(Operation, frozen=True, kw_only=True):
    """The middle of each image; `size` is height, width."""

    size: tuple[_Side, _Side]


class Resize(Operation, frozen=True, kw_only=True):
    """Bilinear to `size` (height, width).

    `letterbox` keeps the ratio of the sides and fills the rest with `fill`. With `antialias` uint8 images come out as Pillow
    makes them; without it, as float32 the way torch's `interpolate(align_corners=False)` makes them.
    """

    size: tuple[_Side, _Side]
    mode: Literal["stretch", "letterbox"] = "stretch"
    antialias: bool = True
    fill: Annotated[int, msgspec.Meta(ge=0, le=255)] = 0


class Channels(Operation, frozen=True, kw_only=True):
    """Between red-green-blue and blue-green-red."""

    from_: Literal["RGB", "BGR"] = msgspec.field(name="from")
    to: Literal["RGB", "BGR"]


class Scale(Operation, frozen=True, kw_only=True):
    """float32(x) / divisor."""

    divisor: _Positive


class Normalise(Operation, frozen=True, kw_only=True):
    """(float32(x) - mean) / std along the last axis: one value each, or one for each channel."""

    mean: Annotated[list[_Finite], _Some]
    std: Annotated[list[_Positive], _Some]


class Transpose(Operation, frozen=True, kw_only=True):
    """Images (n, h, w, c) or (n, h, w) to (n, c, h, w): from HWC to CHW, always the last image operation."""


class Softmax(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An output's last axis as shares that add up to one."""

    output: _Name


class Ctc(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Scores of each step (n, steps, classes) to the classes that were read, (n, longest) int64, the rest filled with -1.

    Greedy: the best class of each step, repeats once, without the blank. `layout` is `tnc` where the steps come first.
    """

    output: _Name
    blank: Annotated[int, msgspec.Meta(ge=0, le=1 << 20)] = 0
    layout: Literal["ntc", "tnc"] = "ntc"


PRE_OPS: dict[str, type[Operation]] = {
    "wordpiece": WordPieceOp,
    "decode": Decode,
    "crop": Crop,
    "resize": Resize,
    "channels": Channels,
    "scale": Scale,
    "normalise": Normalise,
    "transpose": Transpose,
}
POST_OPS: dict[str, type[msgspec.Struct]] = {"softmax": Softmax, "ctc": Ctc}


def parse_operation(step: Mapping[str, Any], known: Mapping[str, type[_T]]) -> _T:
    """One declared operation as a struct.

    Raises:
        DeviceError: `incompatible`: an operation or option this release does not know.
        ValueError: an option is missing or has a value that cannot work.
    """
    name = str(step.get("op"))
    kind = known.get(name)
    if kind is None:
        raise DeviceError("incompatible", f"operation {name!r} is not known; known are {', '.join(sorted(known))}")
    options = {key: value for key, value in step.items() if key != "op"}
    foreign = sorted(set(options) - set(kind.__struct_encode_fields__))
    if foreign:
        raise DeviceError("incompatible", f"operation {name!r} does not know the option {', '.join(foreign)}")
    lacking = [field.encode_name for field in msgspec.structs.fields(kind) if field.required]
    lacking = [option for option in lacking if option not in options]
    if lacking:
        raise ValueError(f"operation {name!r} lacks {', '.join(lacking)}")
    try:
        made = msgspec.convert(options, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"operation {name!r}: {error}") from error
    problem = _own_problem(made)
    if problem:
        raise ValueError(f"operation {name!r}: {problem}")
    return made


def parse_pre(steps: Sequence[Mapping[str, Any]]) -> list[Operation]:
    """Pre-processing in its order, each step and the order checked. Raises like `parse_operation`."""
    made = [parse_operation(step, PRE_OPS) for step in steps]
    layouts: dict[str, str] = {}
    for step, operation in zip(steps, made, strict=True):
        before = layouts.pop(operation.input, "raw")
        problem = _order_problem(operation, before)
        if problem:
            raise ValueError(f"operation {step['op']!r}: {problem}")
        kept = before if before == "chw" else "numbers"
        layouts[operation.result] = {Decode: "image", Transpose: "chw", WordPieceOp: "ids"}.get(type(operation), kept)
    return made


def parse_post(steps: Sequence[Mapping[str, Any]]) -> list[msgspec.Struct]:
    """Post-processing in its order. Raises like `parse_operation`."""
    return [parse_operation(step, POST_OPS) for step in steps]


def _own_problem(operation: msgspec.Struct) -> str:
    if isinstance(operation, Channels) and operation.from_ == operation.to:
        return "from and to are the same"
    if isinstance(operation, Normalise) and len(operation.mean) != len(operation.std):
        return f"{len(operation.mean)} values of mean and {len(operation.std)} of std"
    if isinstance(operation, WordPieceOp):
        if "/" in operation.vocab:
            return "vocab is not a plain file name"
        if not operation.outputs:
            return "no outputs"
    return ""


def _order_problem(operation: Operation, layout: str) -> str:
    """`layout` is what the operations before made of its input: "raw" where there is none."""
    if isinstance(operation, (Decode, WordPieceOp)) and layout != "raw":
        return "takes what the client sent, so it comes first"
    if layout == "ids":
        return "token ids take no further operation"
    if layout == "chw" and not isinstance(operation, Scale):
        return "stands after transpose; the channels have to be last"
    return ""
