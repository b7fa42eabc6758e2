"""The demo's applications: who asks which model on which device. Not here: how they ask (`traffic`)."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from wavegate_server.demo.fleet import DemoDevice, Fleet
from wavegate_server.demo.promises import MODEL, SECOND
from wavegate_server.demo.traffic import Application, Sample

__all__ = ["applications", "write_images"]

_SECOND_RATE = 0.2
"""Requests to the second model for each to the first one."""
_IMAGES = 500


def applications(
    fleet: Fleet, devices: Sequence[DemoDevice], *, pairs: Path, images: Path, rate_per_s: float
) -> list[Application]:
    """One for the first model on each device that is not idle, and one for the second model on each gateway.

    Args:
        fleet: whose devices.
        devices: those that run.
        pairs: JSON lines with labelled address pairs, for the first model.
        images: JSON lines with labelled images, for the second one (see `write_images`).
        rate_per_s: requests to the first model per second and device.
    """
    asked = [device for device in devices if not device.idle]
    first = [fleet.application(device, MODEL, pairs, rate_per_s) for device in asked]
    gateways = [device for device in asked if device.hardware_class == "gateway"]
    return first + [fleet.application(device, SECOND, images, rate_per_s * _SECOND_RATE) for device in gateways]


def write_images(arrays: Path, out: Path) -> Path:
    """Write the first images of a bundle's evaluation set (`input.image`, `label`) as samples; gives `out`."""
    with np.load(arrays) as found:
        samples = [
            Sample(label=int(label), image=image.ravel().tolist())
            for image, label in zip(found["input.image"][:_IMAGES], found["label"][:_IMAGES], strict=True)
        ]
    out.write_bytes(b"\n".join(msgspec.json.encode(sample) for sample in samples))
    return out
