"""What the child is told and how it answers: arguments of its command, and its exit code."""

from enum import IntEnum
from typing import NamedTuple


class Order(NamedTuple):
    """The parser to use, within which limits, and whom to become (-1: stay who we are)."""

    module: str
    memory_bytes: int
    cpu_s: int
    wall_s: int
    text_bytes: int
    uid: int
    gid: int

    def arguments(self) -> list[str]:
        return [str(field) for field in self]

    @classmethod
    def of(cls, arguments: list[str]) -> "Order":
        return cls(arguments[0], *(int(argument) for argument in arguments[1:]))


class Ending(IntEnum):
    """The exit code of a child that was confined. Before that it ends with 1, as Python does on an exception."""

    PARSED = 0
    INVALID = 65
    TOO_LARGE = 66
    EMPTY = 67
    NO_ROOM = 68
    """The text could not be written, which is no fault of the file."""
