"""Model files of other frameworks: told apart by name and first bytes, and refused with the command that converts them."""

from pathlib import Path

from wavegate_shared.errors import UsageError

__all__ = ["refuse_foreign"]

_CONVERT = "python -m tf2onnx.convert --opset 17 --output model.onnx"
_ELSEWHERE = "in an environment of its own (pip install tf2onnx tensorflow), then import model.onnx"
_SAVED = f"{_CONVERT} --saved-model {{name}}"
_KERAS = (
    "save it as a SavedModel with TensorFlow (tf.keras.models.load_model('{name}').export('saved')), convert that with "
    f"{_CONVERT} --saved-model saved"
)
_FROZEN = f"{_CONVERT} --graphdef {{name}} --inputs INPUT:0 --outputs OUTPUT:0 (the graph's own names)"
_LITE = f"{_CONVERT} --tflite {{name}}"
_RECIPES = {
    ".h5": ("a Keras model", _KERAS),
    ".hdf5": ("a Keras model", _KERAS),
    ".keras": ("a Keras model", _KERAS),
    ".pb": ("a TensorFlow graph", _FROZEN),
    ".tflite": ("a TensorFlow Lite model", _LITE),
}
_TORCH = frozenset({".pt", ".pth", ".ckpt", ".safetensors"})
_MAGIC = {b"\x89HDF": ".h5"}
_LITE_MAGIC = b"TFL3"


def refuse_foreign(path: Path, *, weights: bool = False) -> None:
    """Let an ONNX file, or with `weights` torch weights, pass.

    Raises:
        UsageError: `format_unsupported`, with the command that converts the file.
    """
    if path.is_dir():
        if (path / "saved_model.pb").is_file() or (path / "saved_model.pbtxt").is_file():
            raise _refusal("a TensorFlow SavedModel", _SAVED, path.name)
        return
    suffix = path.suffix.lower()
    if path.name == "saved_model.pb":
        raise _refusal("a TensorFlow SavedModel", _SAVED, path.resolve().parent.name)
    known = _RECIPES.get(suffix) or _RECIPES.get(_by_content(path))
    if known is not None:
        raise _refusal(*known, path.name)
    if suffix in _TORCH and not weights:
        raise UsageError(
            "format_unsupported",
            f"{path.name} holds weights of a torch module, not a graph: name the module too, with"
            f" --torch file.py:function --weights {path.name} --inputs X.npz",
        )


def _refusal(kind: str, recipe: str, name: str) -> UsageError:
    return UsageError("format_unsupported", f"{name} is {kind}: {recipe.format(name=name)}; {_ELSEWHERE}")


def _by_content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError:
        return ""
    return ".tflite" if head[4:8] == _LITE_MAGIC else _MAGIC.get(head[:4], "")
