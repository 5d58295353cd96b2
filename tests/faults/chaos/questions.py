"""What clients ask, and what the scripted model makes of it: so it is known beforehand what must come out."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adlatus.rehearsal.markers import introduction
from tests.runs.functions import calls_of, function

Json = dict[str, Any]
MARK = "mark"
"""Key of the metadata by which a client knows again what it has asked for."""

TOOLS: dict[str, list[Json]] = {
    "text": [],
    "functions": [function("look_up")],
    "search": [{"type": "file_search"}],
    "code": [{"type": "code_interpreter"}],
}
"""What the assistant of each kind of question may use."""


@dataclass(frozen=True)
class Question:
    """A question that nobody else asks. `topic` is what is searched for."""

    kind: str
    name: str
    words: int
    pace_s: float
    topic: str = ""
    streams: bool = False
    cancels: bool = False
    cancel_after_s: float = 0.0

    @property
    def text(self) -> str:
        """What the client says."""
        pace = f"[[pace: {self.pace_s}]]"
        match self.kind:
            case "text":
                return f"[[say: {self.said}]]{pace}"
            case "functions":
                return f"{self.name} [[echo: messages]][[call: look_up {json.dumps({'of': self.name})}]]{pace}"
            case "search":
                return f"{self.name} [[call: file_search {json.dumps({'queries': [self.topic]})}]]{pace}"
            case _:
                return f"{self.name} [[call: code_interpreter {json.dumps({'code': self.code})}]]{pace}"

    @property
    def code(self) -> str:
        return f"print('{self.name}')"

    @property
    def said(self) -> str:
        """What the model says in the end; of functions it repeats what it was told instead."""
        if self.kind == "text":
            return " ".join([self.name, *(f"word{n}" for n in range(self.words))])
        return introduction(self.name)


def found(name: str) -> str:
    """What a client finds out about a name."""
    return f"The value of {name} is {name[::-1]}."


def outputs(run: Json) -> list[Json]:
    """What a run waits for, whoever asks."""
    return [
        {"tool_call_id": call["id"], "output": found(json.loads(call["function"]["arguments"])["of"])}
        for call in calls_of(run)
    ]


def conversation(chance: random.Random, name: str, topics: Sequence[str]) -> list[Question]:
    """One to three questions; those about functions come last, because the model repeats all that it was told."""
    kinds = chance.choices(("text", "search", "code"), (6, 3, 1), k=chance.randrange(3))
    kinds.append(chance.choices(tuple(TOOLS), (3, 4, 2, 1))[0])
    return [
        Question(
            kind,
            f"question-{name}-{number}",
            words=chance.randrange(5, 30),
            pace_s=chance.choice((0.002, 0.01, 0.02)),
            topic=chance.choice(topics),
            streams=chance.random() < 0.5,
            cancels=chance.random() < 0.1,
            cancel_after_s=chance.random(),
        )
        for number, kind in enumerate(kinds)
    ]
