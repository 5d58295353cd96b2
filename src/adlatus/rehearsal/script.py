"""A rehearsal script: a YAML file of expectations and answers, read once and checked whole.

Owns what may stand in the file, and what one expectation or answer means; `matching` decides which of them are used.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import orjson
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from adlatus.errors import StartupError
from adlatus.rehearsal import plan
from adlatus.rehearsal.chat import ChatRequest

MOST_BYTES = 2**20
SHOWN_PROBLEMS = 5

Seconds = Annotated[float, Field(ge=0, le=plan.MOST_SECONDS, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=plan.MOST_COUNT)]
Times = Annotated[int, Field(ge=1, le=plan.MOST_COUNT)]
FunctionName = Annotated[str, Field(pattern=f"^{plan.FUNCTION_NAME}$")]


class _Part(BaseModel):
    """A mapping of the file: strict types, no unknown keys, no key without a value."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _has_values(cls, given: object) -> object:
        if isinstance(given, dict) and (empty := [name for name, value in given.items() if value is None]):
            raise ValueError(f"'{empty[0]}' has no value; give it one or leave it out")
        return given


class Condition(_Part):
    """A condition on a text. Exactly one is set."""

    equals: str | None = None
    contains: str | None = None
    matches: re.Pattern[str] | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError("give exactly one of equals, contains, matches; several conditions are a list of them")
        return self

    def holds(self, text: str) -> bool:
        if self.equals is not None:
            return text.strip() == self.equals.strip()
        if self.contains is not None:
            return self.contains in text
        return self.matches is not None and self.matches.search(text) is not None

    def __str__(self) -> str:
        if self.matches is not None:
            return f"match /{self.matches.pattern}/"
        return f"equal “{self.equals}”" if self.contains is None else f"contain “{self.contains}”"


def _conditions(given: object) -> object:
    listed = given if isinstance(given, list) else [given]
    if not listed or not all(isinstance(one, str | dict) for one in listed):
        raise ValueError("must be a text in quotes, {contains: TEXT}, {matches: REGEX}, or a list of these")
    return [{"equals": one} if isinstance(one, str) else one for one in listed]


Conditions = Annotated[Sequence[Condition], BeforeValidator(_conditions)]
"""In the file: a text, a condition, or a list of these."""


class Expectation(_Part):
    """What a request has to be. All that is given must hold; without `tool_results` it must not end with any."""

    user: Conditions = ()
    system: Conditions = ()
    model: str | None = None
    tools: Sequence[str] = ()
    tool_results: dict[str, Conditions] | None = None

    def checks(self, chat: ChatRequest) -> Iterator[tuple[bool, str]]:
        """Each expectation: whether it holds, and what it is."""
        results = chat.results
        if self.tool_results is None and results:
            yield False, "tool_results must be expected, because the request ends with some"
        if self.tool_results is not None and not results:
            yield False, "the request must end with tool results"
        for condition in self.user:
            yield condition.holds(chat.asked), f"user must {condition}"
        for condition in self.system:
            yield condition.holds(chat.system), f"system must {condition}"
        if self.model is not None:
            yield chat.model == self.model, f"model must be “{self.model}”, not “{chat.model}”"
        for name in self.tools:
            yield name in chat.offered, f"tools must have “{name}”"
        for name, conditions in (self.tool_results or {}).items():
            yield name in results, f"tool_results must have “{name}”"
            for condition in conditions:
                yield any(map(condition.holds, results.get(name, []))), f"tool_results of “{name}” must {condition}"


def _arguments(given: object) -> object:
    if not isinstance(given, dict):
        return given
    try:
        return orjson.dumps(given).decode()
    except TypeError as error:
        raise ValueError(f"cannot be written as JSON ({error}); put it in quotes") from error


class ToolCall(_Part):
    """A call of a function. `arguments`: in the file also a mapping, which becomes compact JSON."""

    name: FunctionName
    arguments: Annotated[str, BeforeValidator(_arguments)] = "{}"


class Tokens(_Part):
    """The usage that is reported."""

    prompt_tokens: Count
    completion_tokens: Count


class HttpError(_Part):
    """An error instead of the answer; with `times` only so often, before the answer."""

    status: Annotated[int, Field(ge=400, le=599)]
    message: str | None = None
    code: str | None = None
    retry_after_s: Seconds | None = None
    times: Times | None = None


class Answer(_Part):
    """What the model says to one request."""

    text: str | None = None
    tool_calls: Sequence[ToolCall] = ()
    delay_s: Seconds = 0
    pace_s: Seconds = 0
    finish_reason: Literal["stop", "length", "content_filter", "tool_calls"] | None = None
    usage: Tokens | None = None
    error: HttpError | None = None
    cut_after: Count | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        for_ever = self.error is not None and self.error.times is None
        if self.text is None and not self.tool_calls and not for_ever:
            raise ValueError('give text, tool_calls, or an error without times; an empty answer is text: ""')
        return self

    def planned(self, chat: ChatRequest, *, fails: bool) -> plan.Plan:
        """How it is played to a request. `fails`: with its error, which is left out otherwise."""
        draft = plan.Draft(chat, delay_s=self.delay_s, pace_s=self.pace_s, reason=self.finish_reason)
        if self.text is not None:
            draft.say(self.text)
        for call in self.tool_calls:
            draft.call(call.name, call.arguments)
        if self.usage:
            draft.usage = plan.Usage(self.usage.prompt_tokens, self.usage.completion_tokens)
        if self.cut_after is not None:
            draft.breaks.append((self.cut_after, plan.HangUp()))
        if self.error and fails:
            after = self.error.retry_after_s
            retry_after = None if after is None else f"{round(after, 3):g}"
            draft.failures.append(
                plan.Refuse(self.error.status, self.error.code, retry_after, message=self.error.message)
            )
        return plan.compose(draft)


class Exchange(_Part):
    """An expectation, the answers to the requests that meet it, and how often it may be used."""

    expect: Expectation = Expectation()
    answer: Answer | None = None
    answers: Annotated[Sequence[Answer], Field(min_length=1)] | None = None
    times: Times | None = None

    @model_validator(mode="after")
    def _has_answers(self) -> Self:
        if (self.answer is None) == (self.answers is None):
            raise ValueError("give either answer or answers")
        return self

    @property
    def turns(self) -> Sequence[Answer]:
        """The answers, one after the other; the last one repeats."""
        return self.answers or ((self.answer,) if self.answer else ())


class _File(_Part):
    exchanges: Annotated[Sequence[Exchange], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Script:
    """The exchanges of a file, in its order, which decides where several fit. `name`: the file's, for messages."""

    name: str
    exchanges: Sequence[Exchange]


def load(path: Path) -> Script:
    """Read a script. Raises `StartupError` that names the file, the exchange, the field and what to do."""
    try:
        with path.expanduser().open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StartupError(
            f"cannot read the rehearsal script {path}: {reason}. Check --script or ADLATUS_REHEARSAL_SCRIPT."
        ) from error
    if len(raw) > MOST_BYTES:
        raise StartupError(f"the rehearsal script {path} has more than {MOST_BYTES} bytes. Split it into several.")
    return parse(raw, str(path))


def parse(raw: bytes, name: str) -> Script:
    """The script of a file's content; raises as `load` does."""
    try:
        given = yaml.safe_load(raw)
        file = _File.model_validate(given)
        file.model_dump_json()  # an escape may have been half a character, which no answer can carry
    except ValidationError as error:
        problems = [_problem(one) for one in error.errors(include_url=False)]
        more = f"\n  and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
        listed = "".join(f"\n  {problem}" for problem in problems[:SHOWN_PROBLEMS])
        raise StartupError(
            f"the rehearsal script {name} cannot be played (see docs/rehearsal.md):{listed}{more}"
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise StartupError(f"the rehearsal script {name} is not YAML that can be read: {reason}") from error
    return Script(name, file.exchanges)


_WORDS = {
    "extra_forbidden": "is not known here: correct its name, or the indentation",
    "missing": "is missing",
    "string_type": "must be a text: put it in quotes",
    "too_short": "needs at least one entry",
    "model_type": "must be a mapping (name: value)",
    "dict_type": "must be a mapping (name: value)",
    "is_instance_of": "must be a list (- item)",
    "sequence_str": "must be a list (- item)",
    "string_pattern_mismatch": "must be a name of at most 64 letters, digits, _ or -",
}


def _problem(error: Any) -> str:
    """One problem that pydantic has found, for people."""
    place = [str(part) for part in error["loc"]]
    where = ""
    if place[:1] == ["exchanges"] and len(place) > 1:
        where, place = f"exchange {place[1]}: ", place[2:]
    said = _WORDS.get(error["type"]) or error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{where}{'.'.join(place)} {said}".replace(":  ", ": ").strip()
