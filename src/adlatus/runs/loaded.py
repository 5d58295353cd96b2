"""A run as its executor finds it. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from adlatus.runs import tools
from adlatus.store.db import Row
from adlatus.wire.common import NOTHING_USED, Json, Usage
from adlatus.wire.runs import Run


@dataclass(frozen=True)
class Loaded:
    """A run as its executor finds it: its earlier steps, oldest first, and the seconds until it expires.

    `began` says whether it may have asked the model before. The vector stores, and the files for the code interpreter,
    are those of its assistant.
    """

    run: Run
    steps: list[Row]
    left_s: int
    began: bool
    vector_store_ids: tuple[str, ...]
    code_file_ids: tuple[str, ...]

    @property
    def used(self) -> Usage:
        """What the earlier turns of the run have used."""
        return used_in(self.steps)

    @property
    def calls(self) -> list[Json]:
        """The calls of earlier turns, as their steps have them."""
        return [call for step in self.steps for call in step["step_details"].get("tool_calls", ())]

    @property
    def new_images(self) -> list[str]:
        """The images that code has shown since the last message of the run, which the next one begins with."""
        images: list[str] = []
        for step in self.steps:
            if step["type"] == "message_creation":
                images = []
            else:
                images += tools.images(step["step_details"]["tool_calls"])
        return images


def used_in(steps: Iterable[Row]) -> Usage:
    """What the turns of these steps have used."""
    return sum((Usage.of(step["usage"]) for step in steps if step["usage"]), NOTHING_USED)
