"""Smaller shapes of a network, as data: what the structural step may try, light to heavy, and where it looks next. Pure.

`transformer` and `channels` propose structures of a torch module and apply one; `search.smaller_structures` searches among them. The
shares are predictions to start from, never a result: a structure counts as what its distilled student measures.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Facts", "Limits", "Structure", "first_to_try", "next_to_try"]

_INT8 = 0.26
"""Bytes of an int8 graph over its fp32 form, scales and float rest included (seen: 0.25 to 0.26)."""
_KEPT_SPEED = 0.75
"""Share of the predicted gain that small layers still show: the rest is overhead of each node."""
_FIXED_WORK = 0.02


@dataclass(frozen=True, slots=True)
class Facts:
    """What a proposal depends on besides the module.

    Attributes:
        tokens: how many the vocabulary would keep; 0 where there is none.
        positions: longest input in tokens; 0 where that is not known.
    """

    tokens: int = 0
    positions: int = 0


@dataclass(frozen=True, slots=True)
class Structure:
    """One smaller shape.

    Attributes:
        kind: module of this package that applies it: `transformer` or `channels`.
        name: what reports call it, as "layers2-heads6-ffn768".
        sizes: what `apply` reads; JSON types only.
        parameters: predicted share of the parameters that stays.
        work: predicted share of the multiply-adds that stays.
    """

    kind: str
    name: str
    sizes: dict[str, Any] = field(default_factory=dict)
    parameters: float = 1.0
    work: float = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a result must reach beside the original; None where the budget says nothing.

    Attributes:
        size: largest share of the original's bytes.
        speed: least speed-up.
        int8_speed: speed-up that quantising alone gave.
    """

    size: float | None
    speed: float | None
    int8_speed: float = 1.0

    def within_reach(self, structure: Structure) -> bool:
        """Whether the structure, quantised, is predicted to be small and fast enough."""
        gain = _KEPT_SPEED * max(self.int8_speed, 1.0) / (structure.work + _FIXED_WORK)
        small = self.size is None or structure.parameters * _INT8 <= self.size
        return small and (self.speed is None or gain >= self.speed)


def first_to_try(structures: Sequence[Structure], limits: Limits) -> int:
    """Place of the lightest structure that is predicted to be enough; the heaviest where none is."""
    return next((at for at, each in enumerate(structures) if limits.within_reach(each)), len(structures) - 1)


def next_to_try(at: int, tried: Sequence[int], count: int, *, lossy: bool) -> int | None:
    """Where to look after the structure at `at`: back off to a lighter one when it lost too much, else a heavier one.

    None ends the search: the neighbour was tried already, or there is none.
    """
    after = at - 1 if lossy else at + 1
    return after if 0 <= after < count and after not in tried else None
