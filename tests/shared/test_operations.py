"""The table of operations: what is refused before anything runs, and with which words."""

import math
from pathlib import Path
from typing import Any

import pytest

from wavegate_shared.errors import DeviceError
from wavegate_shared.operations import POST_OPS, PRE_OPS, Normalise, parse_post, parse_pre

CONCEPTS = Path(__file__).parents[2] / "docs" / "concepts.md"
IDS = {"input_ids": "INT64"}
DECODE: dict[str, Any] = {"op": "decode", "input": "image"}
TRANSPOSE: dict[str, Any] = {"op": "transpose", "input": "image"}


def test_an_image_chain_is_read_in_order() -> None:
    steps: list[dict[str, Any]] = [
        DECODE,
        {"op": "resize", "input": "image", "size": [224, 224], "mode": "letterbox", "fill": 114},
        {"op": "channels", "input": "image", "from": "RGB", "to": "BGR"},
        {"op": "scale", "input": "image", "divisor": 255},
        {"op": "normalise", "input": "image", "mean": [0.5], "std": [0.25]},
        {"op": "transpose", "input": "image", "output": "x"},
    ]
    operations = parse_pre(steps)
    assert [type(operation) for operation in operations] == [PRE_OPS[str(step["op"])] for step in steps]
    assert operations[-1].result == "x"
    assert isinstance(operations[4], Normalise)
    assert operations[4].mean == [0.5]


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"op": "resize", "input": "image"}, "lacks size"),
        ({"op": "resize", "input": "image", "size": [0, 4]}, "size"),
        ({"op": "resize", "input": "image", "size": [4, 99999]}, "size"),
        ({"op": "resize", "input": "image", "size": [4]}, "size"),
        ({"op": "resize", "input": "image", "size": [4, 4], "mode": "squash"}, "mode"),
        ({"op": "resize", "input": "image", "size": [4, 4], "fill": 256}, "fill"),
        ({"op": "crop", "input": "image", "size": "4x4"}, "size"),
        ({"op": "crop", "input": "", "size": [4, 4]}, "input"),
        ({"op": "channels", "input": "image", "from": "RGB", "to": "RGB"}, "the same"),
        ({"op": "channels", "input": "image", "from": "RGB", "to": "HSV"}, "to"),
        ({"op": "scale", "input": "image", "divisor": 0}, "divisor"),
        ({"op": "scale", "input": "image", "divisor": math.nan}, "divisor"),
        ({"op": "scale", "input": "image", "divisor": math.inf}, "divisor"),
        ({"op": "normalise", "input": "image", "mean": [0, 0], "std": [1]}, "2 values of mean and 1 of std"),
        ({"op": "normalise", "input": "image", "mean": [0], "std": [0]}, "std"),
        ({"op": "normalise", "input": "image", "mean": [math.nan], "std": [1]}, "mean"),
        ({"op": "normalise", "input": "image", "mean": [], "std": []}, "mean"),
        ({"op": "decode", "input": "image", "mode": "CMYK"}, "mode"),
        ({"op": "decode", "input": "image", "max_pixels": 1 << 40}, "max_pixels"),
        ({"op": "wordpiece", "input": "t", "vocab": "../v.txt", "max_length": 8, "outputs": IDS}, "plain file name"),
        ({"op": "wordpiece", "input": "t", "vocab": "v.txt", "max_length": 8, "outputs": {}}, "no outputs"),
    ],
)
def test_options_that_cannot_work_are_named(step: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match="operation") as refused:
        parse_pre([step])
    assert words in str(refused.value)


@pytest.mark.parametrize("step", [{"op": "fourier"}, {}, {**TRANSPOSE, "axes": [0, 1]}])
def test_what_a_newer_release_may_know_is_incompatible_not_broken(step: dict[str, Any]) -> None:
    with pytest.raises(DeviceError) as refused:
        parse_pre([step])
    assert refused.value.code == "incompatible"


@pytest.mark.parametrize(
    "steps",
    [
        [TRANSPOSE, {"op": "crop", "input": "image", "size": [4, 4]}],
        [TRANSPOSE, TRANSPOSE],
        [TRANSPOSE, {"op": "normalise", "input": "image", "mean": [0], "std": [1]}],
        [{"op": "scale", "input": "image", "divisor": 2}, DECODE],
        [DECODE, DECODE],
    ],
)
def test_an_order_that_would_read_rows_as_channels_is_refused(steps: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="operation"):
        parse_pre(steps)


def test_scale_may_stand_after_transpose() -> None:
    assert len(parse_pre([TRANSPOSE, {"op": "scale", "input": "image", "divisor": 2}])) == 2


def test_post_operations_are_checked_the_same_way() -> None:
    assert parse_post([{"op": "softmax", "output": "logits"}])
    with pytest.raises(ValueError, match="lacks output"):
        parse_post([{"op": "softmax"}])


def test_the_docs_list_every_operation_with_its_options() -> None:
    if not CONCEPTS.is_file():
        pytest.skip("the docs are not here")
    text = CONCEPTS.read_text(encoding="utf-8")
    for name, kind in {**PRE_OPS, **POST_OPS}.items():
        row = next((line for line in text.splitlines() if line.startswith(f"| `{name}` |")), "")
        assert row, f"docs/concepts.md has no row for {name}"
        missing = [option for option in kind.__struct_encode_fields__ if f"`{option}" not in row and option != "output"]
        assert [o for o in missing if o != "input"] == [], f"{name}: {missing}"
