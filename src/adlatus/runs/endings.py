"""How runs end, as values: the run's status, and what becomes of the message and the steps that are open then."""

from dataclasses import dataclass

from adlatus.wire.common import LastError
from adlatus.wire.messages import IncompleteReason
from adlatus.wire.runs import RunStatus
from adlatus.wire.steps import StepStatus


@dataclass(frozen=True)
class Ending:
    """The end of a run. `step` is for the step that writes a message, `calls` for one whose calls have no outputs."""

    status: RunStatus
    step: StepStatus
    calls: StepStatus
    message: IncompleteReason | None = None
    error: LastError | None = None
    details: str | None = None


def _incomplete(details: str, message: IncompleteReason) -> Ending:
    """The text stays and its step is completed; calls that were cut off will not be answered by anyone."""
    return Ending(RunStatus.INCOMPLETE, StepStatus.COMPLETED, StepStatus.CANCELLED, message, details=details)


COMPLETED = Ending(RunStatus.COMPLETED, StepStatus.COMPLETED, StepStatus.COMPLETED)
CANCELLED = Ending(RunStatus.CANCELLED, StepStatus.CANCELLED, StepStatus.CANCELLED, IncompleteReason.RUN_CANCELLED)
EXPIRED = Ending(RunStatus.EXPIRED, StepStatus.EXPIRED, StepStatus.EXPIRED, IncompleteReason.RUN_EXPIRED)
OUT_OF_TOKENS = _incomplete("max_completion_tokens", IncompleteReason.MAX_TOKENS)
OUT_OF_PROMPT_TOKENS = _incomplete("max_prompt_tokens", IncompleteReason.MAX_TOKENS)
FILTERED = _incomplete("content_filter", IncompleteReason.CONTENT_FILTER)


def failed(error: LastError) -> Ending:
    """The ending of a run that failed with `error`."""
    return Ending(RunStatus.FAILED, StepStatus.FAILED, StepStatus.FAILED, IncompleteReason.RUN_FAILED, error)
