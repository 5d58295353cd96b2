"""The code in the arguments of a call, found while the model is still writing them. Pure.

Arguments are `{"code": "…"}`. To parse them from the start with every piece would cost the square of their length, so
only what is new is decoded.
"""

import json
import re
from typing import Any

from adlatus.runs.calls import text_of

NAMES = ("code", "input", "python")
"""What models call it; the first is what they are asked for."""

_BEGUN = re.compile(rf'\s*\{{\s*"(?:{"|".join(NAMES)})"\s*:\s*"')
_LONGEST_BEGINNING, _LONGEST_ESCAPE = 200, 12
# Characters and escapes that are whole; half a surrogate pair is not
_WHOLE = re.compile(
    r'(?:[^"\\]+|\\["\\/bfnrt]|\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4}|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})*'
)


class Code:
    """The code of one call, as its arguments come."""

    def __init__(self) -> None:
        self._rest = ""
        self._begun = self._ended = False
        self._told: list[str] = []

    def add(self, arguments: str) -> str:
        """What more of the code is known now that there are these arguments more."""
        if self._ended:
            return ""
        self._rest += arguments
        if not self._begun:
            begun = _BEGUN.match(self._rest)
            if begun is None:
                self._ended = len(self._rest) > _LONGEST_BEGINNING
                return ""
            self._begun, self._rest = True, self._rest[begun.end() :]
        whole = _WHOLE.match(self._rest)
        assert whole
        self._rest = self._rest[whole.end() :]
        self._ended = len(self._rest) > _LONGEST_ESCAPE or self._rest.startswith('"')
        return self._tell(_decoded(whole[0]))

    def finish(self, arguments: str) -> str:
        """What more of it is known now that these are all arguments."""
        told, code = "".join(self._told), code_in(arguments)
        return self._tell(code[len(told) :] if code and code.startswith(told) else "")

    def _tell(self, code: str) -> str:
        self._told.append(code)
        return code


def shown(arguments: str) -> str:
    """The code of a call as its step shows it; as far as it can be read where the arguments are malformed."""
    code = Code()
    return code.add(arguments) + code.finish(arguments)


def code_in(arguments: str) -> str | None:
    """The code that arguments want to be executed; None where they are malformed.

    Some models write the code itself where its JSON is expected.
    """
    if arguments.lstrip()[:1] not in ("{", '"'):
        return _fit(arguments) if arguments.strip() else None
    try:
        parsed: Any = json.loads(arguments, strict=False)
    except (ValueError, RecursionError):
        return None
    if isinstance(parsed, dict):
        parsed = next((parsed[name] for name in NAMES if name in parsed), None)
    return _fit(parsed) if isinstance(parsed, str) else None


def _decoded(characters: str) -> str:
    return _fit(json.loads(f'"{characters}"', strict=False))


def _fit(code: str) -> str:
    """Code as JSON and the database can keep it."""
    return text_of(code).encode(errors="replace").decode()
