"""ONNX files, written by hand: the few messages of its protobuf schema that a graph needs, so that nobody has to
install `onnx` for the one file that is built here.

Knows the format (`onnx.proto3`, whose field numbers these are), not what a graph computes.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Attribute = int | float | Sequence[int]

IR_VERSION = 8
OPSETS = {"": 17, "com.microsoft": 1}
"""The version of ONNX's own operators, and of onnxruntime's."""


class TensorType(IntEnum):
    """The types of values, by numpy's names."""

    FLOAT32 = 1
    INT8 = 3
    INT32 = 6
    INT64 = 7


_FLOAT, _INT, _INTS = 1, 2, 7
_VARINT, _BYTES, _FIXED32 = 0, 2, 5


@dataclass
class Graph:
    """A graph in the making. Values are known by name; `add` and `constant` give the names of what they add."""

    name: str
    inputs: Mapping[str, tuple[str, Sequence[int | str]]]
    outputs: Mapping[str, tuple[str, Sequence[int | str]]]
    _nodes: list[bytes] = field(default_factory=list)
    _constants: dict[str, bytes] = field(default_factory=dict)

    def constant(self, name: str, value: Array) -> str:
        """A tensor that is stored in the file. The same name again is the same tensor."""
        if name not in self._constants:
            self._constants[name] = _tensor(name, value)
        return name

    def add(self, operator: str, inputs: Sequence[str], outputs: Sequence[str] = (), **attributes: Attribute) -> str:
        """A node; gives the name of its first output. `Microsoft.X` is operator X of onnxruntime itself."""
        domain, _, kind = operator.rpartition(".")
        names = outputs or [f"{kind}_{len(self._nodes)}"]
        self._nodes.append(
            b"".join(
                (
                    *(_text(1, name) for name in inputs),
                    *(_text(2, name) for name in names),
                    _text(3, f"{kind}_{len(self._nodes)}"),
                    _text(4, kind),
                    *(_message(5, _attribute(name, value)) for name, value in attributes.items()),
                    _text(7, "com.microsoft") if domain else b"",
                )
            )
        )
        return names[0]

    def to_bytes(self) -> bytes:
        """The file."""
        graph = b"".join(
            (
                *(_message(1, node) for node in self._nodes),
                _text(2, self.name),
                *(_message(5, constant) for constant in self._constants.values()),
                *(_message(11, _value(name, *described)) for name, described in self.inputs.items()),
                *(_message(12, _value(name, *described)) for name, described in self.outputs.items()),
            )
        )
        opsets = (_message(8, _text(1, domain) + _integer(2, version)) for domain, version in OPSETS.items())
        return b"".join((_integer(1, IR_VERSION), _text(2, "adlatus"), _message(7, graph), *opsets))


def _attribute(name: str, value: Attribute) -> bytes:
    match value:
        case int():
            return _text(1, name) + _integer(3, value) + _integer(20, _INT)
        case float():
            return _text(1, name) + _key(2, _FIXED32) + struct.pack("<f", value) + _integer(20, _FLOAT)
        case _:
            return _text(1, name) + b"".join(_integer(8, one) for one in value) + _integer(20, _INTS)


def _tensor(name: str, value: Array) -> bytes:
    stored = np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes()
    dims = _dims(value.shape)
    return dims + _integer(2, TensorType[value.dtype.name.upper()]) + _text(8, name) + _message(9, stored)


def _dims(shape: Iterable[int]) -> bytes:
    return b"".join(_integer(1, size) for size in shape)


def _value(name: str, dtype: str, shape: Sequence[int | str]) -> bytes:
    """A text in a shape is a size that is known only when the graph runs."""
    sizes = (_integer(1, size) if isinstance(size, int) else _text(2, size) for size in shape)
    tensor = _integer(1, TensorType[dtype.upper()]) + _message(2, b"".join(_message(1, size) for size in sizes))
    return _text(1, name) + _message(2, _message(1, tensor))


def _text(number: int, text: str) -> bytes:
    return _message(number, text.encode())


def _message(number: int, content: bytes) -> bytes:
    return _key(number, _BYTES) + _varint(len(content)) + content


def _integer(number: int, value: int) -> bytes:
    return _key(number, _VARINT) + _varint(value & (2**64 - 1))


def _key(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)
