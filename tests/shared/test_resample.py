"""Resizing beside the two libraries that training scripts use."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wavegate_shared.resample import resized

SIDES = st.integers(1, 40)


def image(height: int, width: int, seed: int, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (1, height, width, channels), dtype=np.uint8)


@given(before=st.tuples(SIDES, SIDES), after=st.tuples(SIDES, SIDES), seed=st.integers(0, 9))
@settings(max_examples=150, deadline=None)
def test_equals_pillow(before: tuple[int, int], after: tuple[int, int], seed: int) -> None:
    """Newer Pillow resizes rows first for some shapes, where one rounding more or less shows; else bit for bit."""
    pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    pixels = image(*before, seed)
    expected = np.asarray(pillow.fromarray(pixels[0]).resize(after[::-1], pillow.Resampling.BILINEAR))
    got = resized(pixels, *after, antialias=True)[0]
    assert np.abs(got.astype(int) - expected).max() <= 1
    if after[0] >= before[0]:
        assert np.array_equal(got, expected)


@pytest.mark.parametrize(("before", "after"), [((480, 640), (224, 224)), ((300, 400), (32, 32)), ((28, 28), (14, 14))])
def test_a_photo_made_smaller_equals_pillow_bit_for_bit(before: tuple[int, int], after: tuple[int, int]) -> None:
    pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    pixels = image(*before, 7)
    expected = np.asarray(pillow.fromarray(pixels[0]).resize(after[::-1], pillow.Resampling.BILINEAR))
    assert np.array_equal(resized(pixels, *after, antialias=True)[0], expected)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(
    ("before", "after"), [((40, 31), (17, 23)), ((9, 14), (30, 28)), ((28, 28), (14, 14)), ((5, 5), (1, 1))]
)
def test_equals_torch(before: tuple[int, int], after: tuple[int, int], antialias: bool) -> None:
    torch = pytest.importorskip("torch", reason="the extra [distil] is not installed")
    pixels = image(*before, 3).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(pixels.transpose(0, 3, 1, 2)), after, mode="bilinear", align_corners=False, antialias=antialias
    )
    got = resized(pixels, *after, antialias=antialias)
    assert got.dtype == np.float32
    assert np.abs(got - expected.numpy().transpose(0, 2, 3, 1)).max() < 1e-3  # of 255


@given(
    before=st.tuples(SIDES, SIDES), after=st.tuples(SIDES, SIDES), level=st.integers(0, 255), antialias=st.booleans()
)
@settings(deadline=None)
def test_one_colour_stays_that_colour(
    before: tuple[int, int], after: tuple[int, int], level: int, antialias: bool
) -> None:
    plain = np.full((2, *before), level, np.uint8)
    got = resized(plain, *after, antialias=antialias)
    assert got.shape == (2, *after)
    assert np.allclose(got, level, atol=1e-3)


def test_the_same_size_changes_nothing() -> None:
    pixels = image(12, 9, 1)
    assert np.array_equal(resized(pixels, 12, 9, antialias=True), pixels)
    assert np.array_equal(resized(pixels, 12, 9, antialias=False), pixels)
