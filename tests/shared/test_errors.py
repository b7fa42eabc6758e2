"""The error tree: every code once, in one class, with a meaning."""

import pytest

from wavegate_shared.errors import CODES, DeviceError, TrustError, WavegateError, error_for


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_makes_an_error_of_its_class(code: str) -> None:
    error = error_for(code, "what happened")
    assert type(error).__name__ == CODES[code].kind
    assert str(error) == f"{code}: what happened"
    assert error.retry is CODES[code].retry
    assert isinstance(error, WavegateError)


def test_without_a_detail_the_meaning_is_told() -> None:
    assert TrustError("wrong_device").detail == CODES["wrong_device"].meaning


def test_a_code_of_another_class_is_a_bug() -> None:
    with pytest.raises(ValueError, match="belongs to"):
        DeviceError("wrong_device")
    with pytest.raises(KeyError):
        DeviceError("no_such_code")
