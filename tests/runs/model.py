"""What runs are to be after each command: the reference of `test_model`, which knows neither database nor time."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

ENDINGS = {
    "completed": ("completed", "completed", "completed"),
    "cancelled": ("cancelled", "cancelled", "incomplete"),
    "expired": ("expired", "expired", "incomplete"),
    "failed": ("failed", "failed", "incomplete"),
    "incomplete": ("completed", "cancelled", "incomplete"),
}
"""What becomes of an open step that writes a message, of one that calls tools, and of the message."""

MAY_END = {
    "queued": {"expired", "failed"},
    "in_progress": {"completed", "failed", "incomplete", "expired"},
    "cancelling": {"cancelled", "completed", "failed", "expired"},
}
"""By what its executor may end a run of each status."""

CLAIMABLE = frozenset(MAY_END)
STOPPED = frozenset({*ENDINGS, "requires_action"})


@dataclass
class Step:
    """A step, and the message that it writes unless it calls: the calls by their ids, `asked` those of the client."""

    calls: dict[str, str | None] | None = None
    asked: set[str] = field(default_factory=set)
    status: str = "in_progress"
    used: int | None = None
    message: str = "in_progress"
    text: str = ""

    @property
    def shown(self) -> tuple[Any, ...]:
        if self.calls is None:
            return ("message_creation", self.status, self.used, self.message, self.text)
        return ("tool_calls", self.status, self.used, self.calls)


@dataclass
class Run:
    """A run. `token` is that of who executes it, `told` the names of its events, those of deltas apart."""

    id: str
    thread_id: str
    project_id: str
    searches: bool
    token: str | None = None
    attempt: int = 0
    status: str = "queued"
    lapsed: bool = False
    overdue: bool = False
    began: bool = False
    abandoned: int = 0
    steps: list[Step] = field(default_factory=list)
    told: list[str] = field(default_factory=lambda: ["thread.run.created", "thread.run.queued"])

    @property
    def active(self) -> bool:
        return self.status not in ENDINGS

    @property
    def executing(self) -> bool:
        return self.token is not None and not self.lapsed

    @property
    def used(self) -> int:
        return sum(step.used or 0 for step in self.steps)

    @property
    def open(self) -> list[Step]:
        return [step for step in self.steps if step.status == "in_progress"]

    @property
    def waits_for(self) -> set[str] | None:
        return self.open[0].asked if self.status == "requires_action" else None

    @property
    def shown(self) -> tuple[Any, ...]:
        """All that the database has to say of it."""
        used = None if self.active else self.used
        steps = [step.shown for step in self.steps]
        lease = (self.token, self.lapsed, self.attempt, self.abandoned)
        return (self.status, lease, self.began, self.waits_for, used, steps)

    def claimable_by(self, searches: bool) -> bool:
        able = searches or not self.searches or self.status == "cancelling"
        return self.status in CLAIMABLE and not self.executing and able

    # --- What executors do

    def claim(self, token: str) -> None:
        self.abandoned += self.token is not None
        self.token, self.lapsed, self.attempt = token, False, self.attempt + 1

    def free(self) -> None:
        self.token, self.lapsed = None, False

    def begin(self) -> bool:
        if self.status != "queued":
            return False
        self._move("in_progress")
        self.began = True
        return True

    def take_back(self) -> None:
        messages = [step for step in self.open if step.calls is None]
        self.told += ["thread.message.incomplete"] * len(messages) + ["thread.run.step.cancelled"] * len(self.open)
        self.steps = [step for step in self.steps if step.status != "in_progress"]

    def open_message(self) -> None:
        self.steps.append(Step())
        self._tell("run.step.created", "run.step.in_progress", "message.created", "message.in_progress")

    def open_calls(self, text: str) -> None:
        self._end_parts("completed", 0, text)
        self.steps.append(Step(calls={}))
        self._tell("run.step.created", "run.step.in_progress")

    def complete_calls(self, calls: Iterable[str], used: int) -> None:
        [step] = self.open
        step.calls = dict.fromkeys(calls)
        self._end_parts("completed", used, "")

    def ask_client(self, calls: Iterable[str], asked: Iterable[str], used: int) -> bool:
        if self.status != "in_progress":
            return False
        [step] = self.open
        step.calls, step.asked, step.used = dict.fromkeys(calls), set(asked), used
        self.free()
        self._move("requires_action")
        self._tell("done")
        return True

    def end(self, ending: str, used: int, text: str, calls: Iterable[str]) -> bool:
        if ending not in MAY_END[self.status]:
            return False
        if ending == "completed" and not self.open:
            self.open_message()
        if ending == "cancelled":
            self._tell("run.cancelling")
        for step in self.open:
            step.calls = dict.fromkeys(calls) if step.calls is not None else None
        self._ended(ending, used, text)
        return True

    # --- What clients and the clock do

    def cancel(self) -> bool:
        if not self.active or self.status == "cancelling":
            return False
        self.attempt += 1
        if self.executing:
            self.status = "cancelling"
        else:
            self._move("cancelling")
            self.end_unexecuted("cancelled")
        return True

    def submit(self, outputs: dict[str, str], token: str | None) -> None:
        [step] = self.open
        assert step.calls is not None
        step.calls |= outputs
        self._end_parts("completed", None, "")
        self.attempt += 2 if token else 1
        self.token = token
        self._move("queued")

    def end_unexecuted(self, ending: str) -> None:
        self.attempt += 1
        self._ended(ending, None, "")

    def _ended(self, ending: str, used: int | None, text: str) -> None:
        self._end_parts(ending, used, text)
        self.free()
        self._move(ending)
        self._tell("done")

    def _end_parts(self, ending: str, used: int | None, text: str) -> None:
        of_message, of_calls, message = ENDINGS[ending]
        for step in self.open:
            step.used = used if used is not None else step.used or 0
            if step.calls is None:
                step.status, step.message, step.text = of_message, message, text
                self._tell(f"message.{message}")
            else:
                step.status = of_calls
            self._tell(f"run.step.{step.status}")

    def _move(self, status: str) -> None:
        self.status = status
        self._tell(f"run.{status}")

    def _tell(self, *events: str) -> None:
        self.told += [event if event == "done" else f"thread.{event}" for event in events]


@dataclass
class Runs:
    """All runs, in the order in which they were made."""

    all: list[Run] = field(default_factory=list)

    def active_on(self, thread_id: str) -> Run | None:
        return next((run for run in self.all if run.thread_id == thread_id and run.active), None)

    def of(self, run_id: str) -> Run:
        return next(run for run in self.all if run.id == run_id)

    def due(self, limit: int, *, searches: bool) -> list[Run]:
        """What an executor that wants so many runs is to get."""
        due = [run for run in self.all if run.claimable_by(searches)]
        return sorted(due, key=lambda run: run.status == "queued")[:limit]

    def renew(self, tokens: Collection[str]) -> dict[str, str]:
        """The heartbeat of an executor."""
        held = {run.token: run for run in self.all if run.token in tokens}
        for run in held.values():
            run.lapsed = False
        return {token: run.status for token, run in held.items() if token}

    def expire(self) -> int:
        """What is overdue and not executed ends."""
        overdue = [run for run in self.all if run.active and run.overdue and not run.executing]
        for run in overdue:
            run.end_unexecuted("cancelled" if run.status == "cancelling" else "expired")
        return len(overdue)
