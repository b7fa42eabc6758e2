"""Protocol tensors and arrays."""

import numpy as np
import pytest

from wavegate_agent.adapters.serving.tensors import DTYPES, datatype_of, from_array, texts, to_array
from wavegate_agent.core.oip import ITEM_BYTES, Tensor, pack_strings
from wavegate_shared.errors import UsageError


@pytest.mark.parametrize("datatype", DTYPES)
def test_binary_and_json_give_the_same_array(datatype: str) -> None:
    array = np.array([[0, 1], [1, 0]], dtype=DTYPES[datatype])
    sent = from_array("x", array, binary=True)
    assert sent.raw is not None
    assert len(sent.raw) == 4 * ITEM_BYTES[datatype]
    back = to_array(Tensor("x", datatype, (2, 2), memoryview(sent.raw)))
    flat = to_array(Tensor("x", datatype, (2, 2), array.reshape(-1).tolist()))
    assert back.dtype == flat.dtype == array.dtype
    assert np.array_equal(back, array)
    assert np.array_equal(flat, array)
    assert datatype_of(array) == datatype


def test_a_slice_is_sent_in_its_own_order() -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3)[:, ::-1]
    sent = from_array("x", array, binary=True)
    assert np.frombuffer(sent.raw or b"", dtype=np.int32).tolist() == [2, 1, 0, 5, 4, 3]


def test_half_floats_have_no_json_form_and_go_as_fp32() -> None:
    assert from_array("x", np.array([1.5], dtype=np.float16), binary=False).datatype == "FP32"


def test_text_both_ways() -> None:
    words = Tensor("t", "BYTES", (1, 2), memoryview(pack_strings(["ä", "b"])))
    assert to_array(words).tolist() == [["ä", "b"]]
    assert from_array("t", np.array(["ä", "b"], dtype=object), binary=True).raw == pack_strings(["ä", "b"])
    assert from_array("t", np.array([b"ok"], dtype=object), binary=False).values == ["ok"]


def test_numbers_are_not_text() -> None:
    with pytest.raises(UsageError, match="expected BYTES"):
        texts(Tensor("t", "INT8", (1,), [1]))
