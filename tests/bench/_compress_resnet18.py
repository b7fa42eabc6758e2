"""Makes the ResNet-18 on Fashion-MNIST for the compress bench: the original with its torch source, its sets, unseen photos.

    python -m tests.bench._compress_resnet18 CACHE OUT

The work is the recipe's of `deploy/models/fashion`, whose cache holds the teacher: training it takes half an hour on two shared
cores, once. Calibration and train sets come from the data set's training part; golden, eval and unseen from its test part.
"""

import sys
from pathlib import Path

_RECIPE = Path(__file__).parents[2] / "deploy" / "models" / "fashion"


def main(cache: Path, out: Path) -> None:
    """Write `out`/bundle and `out`/unseen.npz."""
    sys.path.insert(0, str(_RECIPE))
    import make  # type: ignore[import-not-found]
    from fashion_recipe.bundle import write_original  # type: ignore[import-not-found]
    from fashion_recipe.data import load  # type: ignore[import-not-found]

    cache.mkdir(parents=True, exist_ok=True)
    shared = make.CACHE if (make.CACHE / "teacher.pt").is_file() else cache
    sys.stderr.write(f"resnet18: {write_original(make.teacher(shared), load(shared), out)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
