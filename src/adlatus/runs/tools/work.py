"""What tools have at hand while a run lets them work, and how they fail."""

from collections.abc import Callable
from dataclasses import dataclass

from adlatus.resources import Resources
from adlatus.wire.common import Json, LastError


@dataclass(frozen=True)
class Work:
    """One turn's tools at work for a run.

    `model` is the upstream's name, by which tokens are counted, `window` what fits into it. Each call may tell the
    model `room_tokens`; the call at place n has the position `position + n`. `carried_out` takes what the step keeps
    of each call, by its id; `say_output` streams the output of code: the call's place, the output's number, and more
    of it.
    """

    resources: Resources
    project_id: str
    thread_id: str
    vector_store_ids: tuple[str, ...]
    code_file_ids: tuple[str, ...]
    model: str
    window: int
    room_tokens: int
    position: int
    carried_out: dict[str, Json]
    say_output: Callable[[int, int, Json], None]


class ToolFailed(Exception):  # noqa: N818
    """A tool cannot work, which ends the run."""

    def __init__(self, error: LastError) -> None:
        super().__init__(error.message)
        self.error = error
