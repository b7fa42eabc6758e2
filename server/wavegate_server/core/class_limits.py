"""How large a model may be for a class of hardware before its operator is warned: parameters and compute of one inference.

A warning, never a refusal: whether a device keeps up is measured, on the device, before a swap. The limits are the setting
`WAVEGATE_CLASS_LIMITS`; docs/compression.md says how to choose them. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from wavegate_server.core.sentences import Sentence

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
) -> list[Sentence]:
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
    warnings: list[Sentence] = []
    for name, limit in sorted(chosen.items()):
        place = Sentence("class.any") if name == ANY else Sentence("class.one", name=name)
        if limit.parameters is not None and parameters > limit.parameters:
            warnings.append(
                Sentence("limit.parameters", number=f"{parameters:,}", limit=f"{limit.parameters:,}", place=place)
            )
        if limit.mflops is None:
            continue
        if flops is None:
            warnings.append(Sentence("limit.not_counted", limit=f"{limit.mflops:,.0f}", place=place))
        elif flops / 1e6 > limit.mflops:
            number = f"{flops / 1e6:,.0f}"
            warnings.append(Sentence("limit.compute", number=number, limit=f"{limit.mflops:,.0f}", place=place))
    return warnings
