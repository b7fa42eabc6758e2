"""The recipes, as data, and which of them a model family is worth trying with. Pure: `quantise` applies them.

The order inside a family is the prior: what was best on real models comes first. A recipe is a guess; only the
measurement beside the original decides. docs/compression-measurements.md has what each gave.
"""

from dataclasses import dataclass, field

__all__ = ["ACTIVATIONS", "RECIPES", "Facts", "Planned", "Recipe", "named", "plan"]

_DENSE = ("MatMul", "Gemm")
ACTIVATIONS = ("Relu", "Clip")
"""Quantised with the convolution before them: its range is then that of what comes out of them, not of what they cut off."""
_CONV = ("Conv", "Gemm", *ACTIVATIONS)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to make a candidate.

    Attributes:
        name: what the reports call it.
        method: `dynamic`, `static`, `weights` (int8 storage, float compute), `nbits` (4-bit MatMul), `float16`
            or `magnitude` (small weights become zero).
        ops: operator types it applies to.
        families: model families it is tried on, with the reason given to the operator.
        why: that reason.
        per_channel: a scale for each output channel; falls back to one a tensor where the quantiser cannot.
        activations: `uint8` or `int8`, for static recipes.
        calibration: `minmax`, `entropy` or `percentile`; histograms fall back to `minmax` on variable shapes.
        faster: whether it can be faster than the original at all; the others are for size.
        threshold: weights below it in magnitude become zero, for `magnitude`.
        sparsity: share of each weight that becomes zero, for `magnitude`.
    """

    name: str
    method: str
    ops: tuple[str, ...]
    families: frozenset[str]
    why: str
    per_channel: bool = True
    activations: str = "uint8"
    calibration: str = "minmax"
    faster: bool = True
    threshold: float | None = None
    sparsity: float | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What decides between recipes.

    Attributes:
        family: as `Inspection.family`.
        quantised: the graph is int8 already.
        fixed_shapes: no dynamic dimension but the batch.
        operators: those of the graph, of the graphs inside it too.
        out_of_reach: why no weight of the graph can be reached; empty where some can.
    """

    family: str
    quantised: bool = False
    fixed_shapes: bool = True
    operators: frozenset[str] = field(default_factory=frozenset)
    out_of_reach: str = ""


@dataclass(frozen=True, slots=True)
class Planned:
    """A recipe that will or will not be tried, and why."""

    recipe: str
    why: str


_CONVS, _WORDS = frozenset({"cnn", "detector", "recurrent"}), frozenset({"transformer", "mlp", "recurrent"})
_ALL = _CONVS | _WORDS | {"other"}
_CLASSIC = frozenset({"cnn"})
_HELD = ("Conv", "ConvTranspose", *_DENSE, "Gather")
_ZEROS = "small weights become zero: file and speed unchanged; only the download shrinks, where a budget asks for that"

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "int8-dynamic-per-channel",
        "dynamic",
        (*_DENSE, "Gather", "LSTM"),
        _WORDS,
        "weights int8, activations scaled at run time: best first choice for matrix products",
    ),
    Recipe(
        "int8-dynamic-per-tensor",
        "dynamic",
        (*_DENSE, "Gather", "LSTM"),
        _WORDS,
        "as before with one scale a weight: a little smaller",
        per_channel=False,
    ),
    Recipe(
        "int8-static-matmul",
        "static",
        (*_DENSE, "Gather", *ACTIVATIONS),
        frozenset({"transformer", "mlp"}),
        "calibrated int8 for weighted products only; attention, norms and softmax stay float",
    ),
    Recipe(
        "int8-static-per-channel",
        "static",
        _CONV,
        _CONVS,
        "calibrated int8 convolutions, unsigned activations: the fast kernels of x86 and Arm",
    ),
    Recipe(
        "int8-static-whole",
        "static",
        (*_CONV, "Add", "Mul", "MaxPool", "AveragePool", "GlobalAveragePool", "Flatten", "Reshape"),
        _CLASSIC,
        "int8 from end to end, so that residual sums need no round trip through float",
    ),
    Recipe(
        "int8-static-per-tensor",
        "static",
        _CONV,
        _CONVS,
        "one scale a weight: a little smaller, often less accurate on depthwise nets",
        per_channel=False,
    ),
    Recipe(
        "int8-static-entropy",
        "static",
        _CONV,
        _CLASSIC,
        "ranges by entropy: helps where single activations stick out",
        calibration="entropy",
    ),
    Recipe(
        "int8-static-percentile",
        "static",
        _CONV,
        _CLASSIC,
        "ranges by percentile: helps where single activations stick out",
        calibration="percentile",
    ),
    Recipe(
        "int8-static-signed",
        "static",
        _CONV,
        frozenset({"cnn", "detector"}),
        "signed activations: slower on x86, the native form of some accelerators",
        activations="int8",
    ),
    Recipe(
        "int4-matmul-int8-embedding",
        "nbits",
        ("MatMul",),
        frozenset({"transformer", "mlp"}),
        "4-bit weights in blocks of 32 and int8 look-ups: the smallest, faster only where memory is the limit",
    ),
    Recipe(
        "int8-weights",
        "weights",
        _HELD,
        _ALL,
        "int8 in the file, expanded at every run: a quarter of the size, hardly any loss, and slower",
        faster=False,
    ),
    Recipe("float16", "float16", (), _ALL, "half the size and no more; CPUs compute it no faster", faster=False),
    Recipe("magnitude-below-0.01", "magnitude", _HELD, _ALL, _ZEROS, faster=False, threshold=0.01),
    Recipe("magnitude-40-percent", "magnitude", _HELD, _ALL, _ZEROS, faster=False, sparsity=0.4),
)


def named(name: str) -> Recipe:
    """The recipe called `name`. Raises KeyError."""
    return {recipe.name: recipe for recipe in RECIPES}[name]


def plan(facts: Facts) -> tuple[list[Planned], list[Planned]]:
    """What to try in order, and what not, each with the reason."""
    tried: list[Planned] = []
    skipped: list[Planned] = []
    for recipe in RECIPES:
        reason = _against(recipe, facts)
        (skipped if reason else tried).append(Planned(recipe.name, reason or recipe.why))
    return tried, skipped


def _against(recipe: Recipe, facts: Facts) -> str:
    if facts.quantised:
        return "already quantised: nothing to do"
    if facts.out_of_reach:
        return f"nothing to do: {facts.out_of_reach}"
    if facts.family not in recipe.families:
        if recipe.method == "dynamic" and facts.family in _CONVS:
            return "dynamic int8 makes convolutions slower, 2 to 7 times on x86"
        if recipe.method == "static" and facts.family == "transformer":
            return "static int8 of more than the weighted products ruins transformers"
        return f"not for the family {facts.family}"
    products = [op for op in recipe.ops if op not in ACTIVATIONS]
    if products and facts.operators and not facts.operators.intersection(products):
        return f"no {' or '.join(products)} in the graph"
    if recipe.calibration != "minmax" and not facts.fixed_shapes:
        return "histogram calibration needs inputs of one shape; min-max is as good"
    return ""
