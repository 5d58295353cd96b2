"""How many tokens a text takes."""

from collections.abc import Callable


def counter(_model: str) -> Callable[[str], int]:
    """Counts tokens as a model does, or as `estimate` where its encoding is not known."""
    return estimate


def most(text: str) -> int:
    """More tokens than this no encoding makes of a text: its UTF-8 bytes."""
    return len(text.encode(errors="replace"))


def estimate(text: str) -> int:
    """About how many tokens a text takes."""
    return -(-most(text) // 4)


def is_exact(_model: str) -> bool:
    """Whether the model's own encoding is known."""
    return False
