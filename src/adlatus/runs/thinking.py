"""What a model thinks before it answers, told from the answer. Pure; knows strings only."""

from enum import Enum, auto

_OPEN, _CLOSE = "<think>", "</think>"


class _Stage(Enum):
    """How far an answer is. It only goes down this list, by any of the steps."""

    BEGINNING = auto()  # nothing but whitespace, and perhaps the first characters of `<think>`
    THINKING = auto()  # behind `<think>`
    THOUGHT = auto()  # behind `</think>`, nothing but whitespace since
    ANSWERING = auto()  # for good: whatever tags come now are text


class Thinking:
    """A filter of text that hides `<think>…</think>` where an answer begins with it, wherever the tags are cut.

    Models write whitespace before they call functions: it is held back until something follows it.
    """

    def __init__(self) -> None:
        self.hidden: list[str] = []
        self._stage = _Stage.BEGINNING
        self._blank: list[str] = []
        self._tag = ""

    @property
    def over(self) -> bool:
        """Whether all that comes is the answer and need not be filtered any more."""
        return self._stage is _Stage.ANSWERING

    def filter(self, text: str) -> str:
        """What may be shown now that the model has written `text`."""
        match self._stage:
            case _Stage.BEGINNING:
                return self._begin(text)
            case _Stage.THINKING:
                return self._think(text)
            case _Stage.THOUGHT:
                return self._answer(text.lstrip())
            case _Stage.ANSWERING:
                return text

    def finish(self) -> str:
        """What may be shown of what was held back, now that the model has ended."""
        tag, self._tag = self._tag, ""
        if self._stage is _Stage.THINKING:
            self.hidden.append(tag)
        if self._stage is not _Stage.BEGINNING:
            return ""
        self._stage = _Stage.ANSWERING
        return "".join(self._blank) + tag

    def _begin(self, text: str) -> str:
        text = self._tag + text
        begun = text.lstrip()
        self._blank.append(text[: len(text) - len(begun)])
        if begun.startswith(_OPEN):
            self._stage, self._tag = _Stage.THINKING, ""
            return self._think(begun.removeprefix(_OPEN))
        if _OPEN.startswith(begun):
            self._tag = begun
            return ""
        return self._answer("".join(self._blank) + begun)

    def _think(self, text: str) -> str:
        thought, closed, rest = (self._tag + text).partition(_CLOSE)
        self._tag = "" if closed else _cut_tag(thought)
        self.hidden.append(thought.removesuffix(self._tag))
        if not closed:
            return ""
        self._stage = _Stage.THOUGHT
        return self._answer(rest.lstrip())

    def _answer(self, text: str) -> str:
        if text:
            self._stage = _Stage.ANSWERING
        return text


def _cut_tag(text: str) -> str:
    """The end of a text that may still become `</think>`."""
    begun = text.rfind("<")
    return text[begun:] if begun >= 0 and _CLOSE.startswith(text[begun:]) else ""
