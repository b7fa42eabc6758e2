"""Whether an ONNX file may be given to the runtime: a walk over its protobuf bytes, without the `onnx` package.

A model file is input from outside, and runtimes have read foreign files (external data with `../`) or raw addresses
through it. Refused: external data anywhere (graph, subgraphs, functions, sparse tensors), operator domains not allowed,
too many nodes, too deep nesting, an opset above the limit, truncated or garbage bytes. Unknown fields are skipped by
their wire type, as protobuf says. What only shows at run time (a constant that expands to terabytes, an endless loop) is
caught by the candidate's own process and its limits, not here.

Source: onnx.proto (IR 10) for the field numbers, protobuf encoding guide.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from wavegate_shared.errors import DeviceError

__all__ = ["DOMAINS", "MAX_DEPTH", "MAX_NODES", "Scan", "scan"]

MAX_NODES = 50_000
MAX_DEPTH = 16
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Domains every runtime here has; a manifest may name more (`requires.domains`)."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_EXTERNAL = 1  # TensorProto.DataLocation.EXTERNAL
_MAX_TENSORS = 200_000


@dataclass(slots=True)
class Scan:
    """What was found in an acceptable file."""

    nodes: int = 0
    tensors: int = 0
    opset: int = 0
    domains: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Field:
    number: int
    kind: int
    value: int
    view: memoryview


class _Walk:
    """One walk; each method reads one message type. Field numbers are onnx.proto's."""

    def __init__(self, allowed: Collection[str], max_nodes: int) -> None:
        self.found = Scan()
        self._allowed = frozenset(allowed)
        self._max_nodes = max_nodes
        self._graphs = 0

    def model(self, data: memoryview) -> None:
        for item in _fields(data):
            if item.number == 7:
                self._graphs += 1
                self.graph(_message(item), 0)
            elif item.number == 8:
                self.opset_import(_message(item))
            elif item.number == 20:
                raise _refused("training information")
            elif item.number == 25:
                self.function(_message(item))
        if self._graphs != 1:
            raise _refused(f"{self._graphs} graphs, exactly one is expected")

    def graph(self, data: memoryview, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise _refused(f"graphs nested deeper than {MAX_DEPTH}")
        readers: dict[int, Callable[[memoryview], None]] = {
            1: lambda view: self.node(view, depth),
            5: self.tensor,
            15: self.sparse_tensor,
        }
        _each(data, readers)

    def node(self, data: memoryview, depth: int) -> None:
        self.found.nodes += 1
        if self.found.nodes > self._max_nodes:
            raise _refused(f"more than {self._max_nodes} nodes")
        _each(data, {5: lambda view: self.attribute(view, depth), 7: self.domain})

    def attribute(self, data: memoryview, depth: int) -> None:
        readers: dict[int, Callable[[memoryview], None]] = {
            5: self.tensor,
            6: lambda view: self.graph(view, depth + 1),
            10: self.tensor,
            11: lambda view: self.graph(view, depth + 1),
            22: self.sparse_tensor,
            23: self.sparse_tensor,
        }
        _each(data, readers)

    def function(self, data: memoryview) -> None:
        readers: dict[int, Callable[[memoryview], None]] = {
            7: lambda view: self.node(view, 1),
            9: self.opset_import,
            10: self.domain,
            11: lambda view: self.attribute(view, 1),
        }
        _each(data, readers)

    def tensor(self, data: memoryview) -> None:
        self.found.tensors += 1
        if self.found.tensors > _MAX_TENSORS:
            raise _refused(f"more than {_MAX_TENSORS} tensors")
        for item in _fields(data):
            if item.number == 13 or (item.number == 14 and item.value == _EXTERNAL):
                raise _refused("a tensor keeps its data outside the file")

    def sparse_tensor(self, data: memoryview) -> None:
        _each(data, {1: self.tensor, 2: self.tensor})

    def opset_import(self, data: memoryview) -> None:
        domain, version = "", 0
        for item in _fields(data):
            if item.number == 1:
                domain = _text(item)
            elif item.number == 2:
                version = item.value
        self._check_domain(domain)
        if domain in ("", "ai.onnx"):
            self.found.opset = max(self.found.opset, version)

    def domain(self, data: memoryview) -> None:
        self._check_domain(_decode(data))

    def _check_domain(self, domain: str) -> None:
        self.found.domains.add(domain)
        if domain not in self._allowed:
            raise _refused(f"operator domain {domain!r} is not allowed here")


def scan(data: memoryview, *, domains: Collection[str] = (), max_opset: int = 0, max_nodes: int = MAX_NODES) -> Scan:
    """Walk a model file.

    Args:
        data: the file's bytes, usually a memory map.
        domains: allowed beside `DOMAINS`.
        max_opset: highest opset of the default domain, 0 for no limit.
        max_nodes: most nodes in all graphs and functions together.

    Raises:
        DeviceError: `model_rejected`, naming the rule.
    """
    walk = _Walk({*DOMAINS, *domains}, max_nodes)
    walk.model(data)
    if walk.found.opset == 0:
        raise _refused("no opset is named")
    if max_opset and walk.found.opset > max_opset:
        raise _refused(f"opset {walk.found.opset}, at most {max_opset} is read here")
    return walk.found


def _each(data: memoryview, readers: dict[int, Callable[[memoryview], None]]) -> None:
    for item in _fields(data):
        reader = readers.get(item.number)
        if reader is not None:
            reader(_message(item))


def _fields(data: memoryview) -> Iterator[_Field]:
    at, end = 0, len(data)
    empty = data[:0]
    while at < end:
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        value, view = 0, empty
        if kind == _VARINT:
            value, at = _varint(data, at)
        elif kind == _BYTES:
            size, at = _varint(data, at)
            view = data[at : at + size]
            at += size
        elif kind == _FIXED64:
            at += 8
        elif kind == _FIXED32:
            at += 4
        else:
            raise _refused(f"wire type {kind}: not a model file")
        if at > end or number == 0:
            raise _refused("truncated or not a model file")
        yield _Field(number, kind, value, view)


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
        if shift > 63:
            break
    raise _refused("truncated or not a model file")


def _message(item: _Field) -> memoryview:
    if item.kind != _BYTES:
        raise _refused("a field has the wrong wire type")
    return item.view


def _text(item: _Field) -> str:
    return _decode(_message(item))


def _decode(data: memoryview) -> str:
    try:
        return str(data[:256], "utf-8")
    except UnicodeDecodeError as error:
        raise _refused("a domain is not text") from error


def _refused(reason: str) -> DeviceError:
    return DeviceError("model_rejected", reason)
