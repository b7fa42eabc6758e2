"""The recipes, and the subprocess that applies one: `python -m wavegate_server.compress.recipes NAME SOURCE TARGET`.

Post-training int8 by ONNX Runtime's quantiser. Dynamic quantisation suits transformers (weights int8, activations scaled
at run time, 1.9-2.4 x) and slows convolutional nets down, so recipes are tried by model family; a candidate that is slower
or worse is never chosen silently, whatever the family says.
"""

import logging
import sys
from pathlib import Path

__all__ = ["RECIPES", "recipes_for"]

RECIPES: dict[str, dict[str, bool]] = {
    "int8-dynamic-per-channel": {"per_channel": True},
    "int8-dynamic-per-tensor": {"per_channel": False},
}


def recipes_for(family: str) -> list[str]:
    """The recipes worth trying for a model family, best prior first."""
    return list(RECIPES) if family in ("transformer", "") else list(RECIPES)[:1]


def _apply(recipe: str, source: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.disable(logging.WARNING)
    quantize_dynamic(
        model_input=str(source),
        model_output=str(target),
        op_types_to_quantize=["MatMul", "Gemm", "Gather"],
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True},
        **RECIPES[recipe],
    )


if __name__ == "__main__":
    _apply(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
