"""How large a model may be for a class of hardware before its operator is warned: parameters and compute of one inference.

A warning, never a refusal: whether a device keeps up is measured, on the device, before a swap. The limits are the setting
`WAVEGATE_CLASS_LIMITS`; docs/compression.md says how to choose them. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["ANY", "DEFAULT_LIMITS", "ClassLimit", "over_limit"]

ANY = "*"
"""The limit of classes that have none of their own."""


@dataclass(frozen=True, slots=True)
class ClassLimit:
    """Limits of one class; None is no limit. `mflops`: millions of floating-point operations of one inference."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  # pydantic reads it: a misspelt limit is no limit otherwise

    parameters: int | None = None
    mflops: float | None = None


DEFAULT_LIMITS = {ANY: ClassLimit(parameters=100_000_000, mflops=20_000)}
"""Round figures, not measurements: 400 MB of fp32 weights, and about a second on one slow core (20 GFLOP/s)."""


def over_limit(
    parameters: int, flops: int | None, limits: Mapping[str, ClassLimit], device_class: str = ""
) -> list[str]:
    """A sentence for each limit that the model is above.

    Args:
        parameters: of the model.
        flops: of one inference; None where they could not be counted, which is a sentence where there is a limit on them.
        limits: by class.
        device_class: only this class, or `ANY` where it has no limit of its own; empty: every class that has one.
    """
    chosen = {device_class: limits[device_class]} if device_class in limits else dict(limits)
    if device_class and device_class not in limits:
        chosen = {name: limit for name, limit in limits.items() if name == ANY}
    found = []
    for name, limit in sorted(chosen.items()):
        place = "any class" if name == ANY else f"class {name}"
        if limit.parameters is not None and parameters > limit.parameters:
            found.append(f"{parameters:,} parameters, above the limit of {limit.parameters:,} for {place}")
        if limit.mflops is None:
            continue
        if flops is None:
            found.append(
                f"compute could not be counted; {place} has a limit of {limit.mflops:,.0f} MFLOPs an inference"
            )
        elif flops / 1e6 > limit.mflops:
            found.append(f"{flops / 1e6:,.0f} MFLOPs an inference, above the limit of {limit.mflops:,.0f} for {place}")
    return found
