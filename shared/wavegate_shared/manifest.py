"""The manifest: what a version is. It is the TUF target of `release/<model>`, so its bytes are signed.

It lists every artifact (model, golden set, vocabulary, ...) with digest and chunk hashes, what the version requires, how it
is judged, and the before/after table it was published with. Devices ignore fields they do not know and refuse a newer
schema number.
"""

import re
from typing import Annotated, Any

import msgspec

from wavegate_shared.chunks import CHUNK_BYTES, Chunk
from wavegate_shared.decoding import MALFORMED
from wavegate_shared.errors import TrustError
from wavegate_shared.metrics import Metric

__all__ = [
    "MODEL_NAME",
    "Artifact",
    "Comparison",
    "Golden",
    "Manifest",
    "Pre",
    "Requires",
    "Slo",
    "TensorSpec",
    "decode_manifest",
    "encode_manifest",
    "target_path",
]

MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_SCHEMA = 1

Size = Annotated[int, msgspec.Meta(ge=0)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a version.

    Attributes:
        name: file name inside the version's directory, no slash.
        role: `model`, `golden`, `vocab`, or `extra`.
        sha256: digest of the plain file, hex.
        size_bytes: its length.
        chunks: its pieces in order.
    """

    name: str
    role: str
    sha256: Sha256
    size_bytes: Size
    chunks: list[Chunk]


class TensorSpec(msgspec.Struct, frozen=True):
    """A named tensor; datatype as in the Open Inference Protocol (FP32, INT64, BYTES, ...), -1 is any size."""

    name: str
    datatype: str
    shape: list[int]


class Pre(msgspec.Struct, frozen=True, kw_only=True):
    """One declared pre-processing operation. `op` names it; `options` are its own (see docs/concepts.md)."""

    op: str
    options: dict[str, Any] = {}


class Golden(msgspec.Struct, frozen=True, kw_only=True):
    """The golden set's rule: the metric over its samples must keep to `limit` (a floor for `up`, a ceiling for `down`)."""

    artifact: str
    limit: float
    samples: Size


class Requires(msgspec.Struct, frozen=True, kw_only=True):
    """What a device must have. Zero or empty means: no demand."""

    memory_mb: int = 0
    runtime_min: str = ""
    opset: int = 0
    domains: list[str] = []
    providers: list[str] = []
    classes: list[str] = []


class Slo(msgspec.Struct, frozen=True, kw_only=True):
    """Absolute limits a version promises; None is no promise."""

    p95_ms: float | None = None
    peak_memory_mb: float | None = None
    error_ceiling: float | None = None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the before/after table.

    Attributes:
        before, after: None: not measured.
        where: the device it was measured on, as "kiosk-1, class edge-a"; empty for the host.
    """

    name: str
    unit: str
    before: float | None
    after: float | None
    where: str = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a model, as signed. `version` is also its release counter: it only rises."""

    schema: int
    model: str
    version: Annotated[int, msgspec.Meta(ge=1)]
    created: str
    task: str
    family: str = ""
    licence: str = ""
    description: str = ""
    artifacts: list[Artifact]
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    pre: list[Pre] = []
    post: list[Pre] = []
    labels: list[str] = []
    metric: Metric
    golden: Golden
    requires: Requires = Requires()
    slo: Slo = Slo()
    recipe: str = "original"
    parent: int | None = None
    comparison: list[Comparison] = []
    bench_only: bool = False

    def artifact(self, role: str) -> Artifact:
        """The first artifact of a role. Raises TrustError `manifest_invalid` when there is none."""
        for artifact in self.artifacts:
            if artifact.role == role:
                return artifact
        raise TrustError("manifest_invalid", f"no artifact with role {role!r}")

    @property
    def size_bytes(self) -> int:
        """Bytes of all artifacts together."""
        return sum(artifact.size_bytes for artifact in self.artifacts)


def target_path(model: str, version: int) -> str:
    """The TUF target path of a version's manifest; `release/<model>` is delegated `<model>/*`."""
    return f"{model}/{version}.json"


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes that become the TUF target; the same manifest always gives the same bytes."""
    return msgspec.json.encode(manifest, order="deterministic")


def decode_manifest(data: bytes) -> Manifest:
    """Read and check a manifest; `decode_manifest(encode_manifest(m)) == m`.

    Raises:
        TrustError: `manifest_invalid`, with the first rule it breaks.
    """
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except MALFORMED as error:
        raise TrustError("manifest_invalid", str(error)) from error
    problem = _problem(manifest)
    if problem:
        raise TrustError("manifest_invalid", problem)
    return manifest


def _problem(manifest: Manifest) -> str:
    if manifest.schema != _SCHEMA:
        return f"schema {manifest.schema}; this agent reads {_SCHEMA}: update the agent first"
    if MODEL_NAME.fullmatch(manifest.model) is None:
        return f"model name {manifest.model!r}"
    names = [artifact.name for artifact in manifest.artifacts]
    if len(set(names)) != len(names) or not all(_FILE_NAME.fullmatch(name) for name in names):
        return "artifact names are not unique plain file names"
    for artifact in manifest.artifacts:
        if sum(chunk.size_bytes for chunk in artifact.chunks) != artifact.size_bytes:
            return f"chunks of {artifact.name} do not add up to its size"
        if any(not 0 < chunk.size_bytes <= CHUNK_BYTES for chunk in artifact.chunks):
            return f"a chunk of {artifact.name} is empty or larger than a frame"
    if manifest.golden.artifact not in names or "model" not in {artifact.role for artifact in manifest.artifacts}:
        return "model or golden set is not among the artifacts"
    return ""
