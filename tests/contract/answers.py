"""Answers of every kind that a text can be, as messages that make the model give them; and the events they come in."""

import pytest

FAMILY = "👩‍👩‍👧‍👦"
ANSWERS = {
    "short": "[[say: Hello, Jane!]]",
    "empty": "[[say: ]]",
    "of 2,000 tokens": "[[tokens: 2000]]",
    "emoji": f"[[say: {FAMILY} waves 👋🏽 and 𝕳 \U0010fffd too]]",
    "Chinese and Japanese": "[[say: 你好,世界 こんにちは 안녕]]",
    "combining characters": "[[say: e\u0301 is not \u00e9; Z\u0351\u036b\u0343 नमस्ते \u202eright to left]]",
    "controls and quotes": '[[say: "quoted" \\ back\tslash\nline\r\nline\u2028line\u0085line \x01 end\n\n]]',
}

OPENING = [
    "thread.run.created",
    "thread.run.queued",
    "thread.run.in_progress",
    "thread.run.step.created",
    "thread.run.step.in_progress",
    "thread.message.created",
    "thread.message.in_progress",
]
ENDING = ["thread.message.completed", "thread.run.step.completed", "thread.run.completed"]
"""*Source*: semantics, 2.1 (1)."""

each_answer = pytest.mark.parametrize("content", [pytest.param(text, id=name) for name, text in ANSWERS.items()])


def spoken(content: str) -> str:
    """The text that a message of `ANSWERS` makes the model say."""
    if content == ANSWERS["of 2,000 tokens"]:
        return " ".join(f"word{number}" for number in range(1, 2001))
    return content.removeprefix("[[say: ").removesuffix("]]")
