"""Bilinear resizing of images in numpy, equal to what training scripts use.

Two ways: with antialias, uint8 images come out as Pillow's `Image.resize(..., BILINEAR)` makes them, bit for bit, since both
work in the same fixed-point numbers (where Pillow takes rows first, as newer ones do for tall images, one rounding more shows:
1 of 255); float32 ones as torch's `interpolate(antialias=True)`. Without, images become float32 as
torch's `interpolate(mode="bilinear", align_corners=False)` makes them.

Source: Pillow, `src/libImaging/Resample.c`; PyTorch, `aten/src/ATen/native/UpSample.h`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["resized"]

_BITS = 22  # of a fixed-point weight: 8 bits of the pixel, 2 to spare, 32 in all


def resized(images: NDArray[Any], height: int, width: int, *, antialias: bool) -> NDArray[Any]:
    """Images (n, h, w) or (n, h, w, c) of uint8 or float, as (n, height, width(, c)) of uint8 or float32."""
    if not antialias:
        values = images.astype(np.float32)
        return _summed(_summed(values, 2, *_two_taps(values.shape[2], width)), 1, *_two_taps(values.shape[1], height))
    fixed = images.dtype == np.uint8
    values = images if fixed else images.astype(np.float32)
    for axis, size in ((2, width), (1, height)):  # Pillow's order; each pass rounds
        if values.shape[axis] == size:
            continue
        places, weights = _triangle(values.shape[axis], size)
        values = _summed_fixed(values, axis, places, weights) if fixed else _summed(values, axis, places, weights)
    return values


def _two_taps(before: int, after: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Places (after, 2) and weights of the two pixels around each centre, in float32 as torch computes them."""
    ratio = np.float32(before) / np.float32(after)
    centre = ratio * (np.arange(after, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5)
    centre = np.maximum(centre, np.float32(0))
    low = np.minimum(centre.astype(np.int64), before - 1)
    share = (centre - low.astype(np.float32)).astype(np.float32)
    return np.stack([low, np.minimum(low + 1, before - 1)], axis=1), np.stack([1 - share, share], axis=1)


def _triangle(before: int, after: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Places (after, taps) and weights of a triangle as wide as the pixels it stands for."""
    ratio = before / after
    support = max(ratio, 1.0)
    centre = (np.arange(after) + 0.5) * ratio
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), before)
    taps = int((last - first).max())
    places = first[:, None] + np.arange(taps)
    weights = np.maximum(1 - np.abs((places - centre[:, None] + 0.5) / support), 0) * (places < last[:, None])
    return np.minimum(places, before - 1), weights / weights.sum(axis=1, keepdims=True)


def _summed(images: NDArray[Any], axis: int, places: NDArray[np.int64], weights: NDArray[Any]) -> NDArray[Any]:
    total: NDArray[Any] = np.take(images, places[:, 0], axis=axis) * _along(
        weights[:, 0].astype(np.float32), axis, images.ndim
    )
    for tap in range(1, places.shape[1]):
        part = np.take(images, places[:, tap], axis=axis)
        part *= _along(weights[:, tap].astype(np.float32), axis, images.ndim)
        total += part
    return total


def _summed_fixed(images: NDArray[Any], axis: int, places: NDArray[np.int64], weights: NDArray[Any]) -> NDArray[Any]:
    whole = (0.5 + weights * (1 << _BITS)).astype(np.int32)
    shape = [*images.shape]
    shape[axis] = len(places)
    total = np.full(shape, 1 << (_BITS - 1), dtype=np.int32)
    for tap in range(places.shape[1]):
        part = np.take(images, places[:, tap], axis=axis).astype(np.int32)
        part *= _along(whole[:, tap], axis, images.ndim)
        total += part
    clipped: NDArray[Any] = np.clip(total >> _BITS, 0, 255).astype(np.uint8)
    return clipped


def _along(weights: NDArray[Any], axis: int, dimensions: int) -> NDArray[Any]:
    return weights.reshape([-1 if at == axis else 1 for at in range(dimensions)])
