"""Commands as the documentation shows them, checked without being run: what they name has to be there."""

import argparse
import importlib.util
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from io import StringIO
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from adlatus.cli import _parser
from adlatus.settings import Settings
from tests.docs.documents import ROOT

_OTHERS = """
apt cd cp createdb docker export git jq kill kubectl litellm llama-server ls mkdir npm ollama pg_dump pg_restore rm set
source systemctl tar vllm
"""
OF_OTHERS = frozenset(_OTHERS.split())
"""Programs that are not ours; of their arguments only paths of this repository are looked at."""

TESTING = {"ADLATUS_TEST_REFERENCE", "ADLATUS_TEST_REQUIRE", "ADLATUS_TEST_DATABASE_URL"}
SETTINGS = {f"ADLATUS_{name.upper()}": name for name in Settings.model_fields}
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
_FOLDERS = re.compile(r"(?:\./)?((?:src|tests|docs|examples|bench|docker|deploy|migrations)/[\w./-]*|[\w-]+\.yml)")
_ENDS = re.compile(r"[;&|()]+|\$")
_ASSIGNED = re.compile(r"([A-Z][A-Z0-9_]*)=(.*)", re.S)


class WrongError(AssertionError):
    """A command names what is not there."""


@dataclass(frozen=True)
class Command:
    """A simple command, and the variables that are set for it."""

    words: list[str]
    variables: dict[str, str] = field(default_factory=dict)


def commands(text: str) -> Iterator[Command]:
    """The simple commands of a script, without its control structures."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|()<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if _ENDS.fullmatch(word):
                if words:
                    yield _command(words)
                words = []
            else:
                words.append(word)


def _command(words: list[str]) -> Command:
    variables = {}
    if words[0] == "export":
        return Command(["export"], dict(_assigned(words[1:])))
    while words and (assigned := _ASSIGNED.fullmatch(words[0])):
        variables[assigned[1]] = assigned[2]
        words = words[1:]
    return Command(words, variables)


def _assigned(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    for word in words:
        name, _, value = word.partition("=")
        yield name, value


def check(command: Command, routes: Callable[[str, str], bool]) -> None:
    """Raise `WrongError` if a command names a setting, target, option, module, path or route that is not there."""
    for name, value in command.variables.items():
        check_setting(name, value)
    if not command.words:
        return
    program, *arguments = command.words
    for argument in arguments:
        if (path := _FOLDERS.fullmatch(argument)) and not (ROOT / path[1]).exists():
            raise WrongError(f"{argument} is not there")
    name = PurePosixPath(program).name
    if name == "curl":
        check_curl(arguments, routes)
    elif checking := _OURS.get(name):
        checking(arguments)
    elif name not in OF_OTHERS:
        raise WrongError(f"{program} is not known: add it to OF_OTHERS if it is a program of others")


def check_setting(name: str, value: str) -> None:
    if name.startswith("ADLATUS_") and name not in TESTING:
        if name not in SETTINGS:
            raise WrongError(f"{name} is no setting")
        if "$" not in value:
            given: dict[str, Any] = {SETTINGS[name]: value}
            Settings(**given)


def check_adlatus(arguments: Sequence[str]) -> None:
    said = StringIO()
    try:
        with redirect_stderr(said):
            _parser().parse_args(arguments)
    except SystemExit as ended:
        if ended.code:
            raise WrongError(f"adlatus {shlex.join(arguments)}: {said.getvalue()}") from None


def check_named_adlatus(words: Sequence[str]) -> None:
    """A command of ours as it is named in a sentence: its beginning, and flags that it has."""
    parser = _parser()
    for word in words:
        known = {flag for action in parser._actions for flag in action.option_strings}
        choices = next((each.choices for each in parser._actions if isinstance(each, argparse._SubParsersAction)), None)
        if choices and word in choices:
            parser = choices[word]
        elif (choices or word.startswith("-")) and word.partition("=")[0] not in known:
            raise WrongError(f"{parser.prog} has no {word}")


def check_make(arguments: Sequence[str]) -> None:
    for argument in arguments:
        if not argument.startswith("-") and "=" not in argument and argument not in TARGETS:
            raise WrongError(f"make has no target {argument}")


def check_python(arguments: Sequence[str]) -> None:
    if arguments[:1] == ["-m"]:
        if importlib.util.find_spec(arguments[1]) is None:
            raise WrongError(f"there is no module {arguments[1]}")
        if arguments[1].startswith("bench"):
            check_flags(arguments[1], arguments[2:])
    elif arguments and arguments[0].endswith(".py") and not (ROOT / arguments[0]).is_file():
        raise WrongError(f"{arguments[0]} is not there")


def check_flags(module: str, arguments: Sequence[str]) -> None:
    spec = importlib.util.find_spec(module if module != "bench" else "bench.__main__")
    assert spec
    assert spec.origin
    source = (ROOT / spec.origin).read_text("utf-8")
    for argument in arguments:
        if argument.startswith("--") and f'"{argument}"' not in source:
            raise WrongError(f"{module} has no {argument}")


def check_pip(arguments: Sequence[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for argument in arguments:
        if wanted := re.search(r"^adlatus.*\[([\w,]+)]", argument):
            for extra in wanted[1].split(","):
                if extra not in project["optional-dependencies"]:
                    raise WrongError(f"there is no extra {extra}")


def check_pytest(arguments: Sequence[str]) -> None:
    for argument in arguments:
        path, _, test = argument.partition("::")
        if test and f"def {test}(" not in (ROOT / path).read_text("utf-8"):
            raise WrongError(f"{argument} is not there")


def check_curl(arguments: Sequence[str], routes: Callable[[str, str], bool]) -> None:
    """Addresses of this server are routes that it has, with the method that is used."""
    method = next((after for flag, after in pairwise(arguments) if flag in ("-X", "--request")), "")
    sends = any(argument in ("-d", "--data", "-F", "--form", "--data-binary") for argument in arguments)
    for argument in arguments:
        address = urlsplit(argument)
        if address.netloc in ("127.0.0.1:8000", "localhost:8000") and not routes(
            method or ("POST" if sends else "GET"), address.path
        ):
            raise WrongError(f"{method} {address.path} is no route")


def _nothing(_: Sequence[str]) -> None:
    """Its paths have been looked at already."""


_OURS: dict[str, Callable[[Sequence[str]], None]] = {
    "adlatus": check_adlatus,
    "make": check_make,
    "pip": check_pip,
    "pytest": check_pytest,
    "python": check_python,
    "python3": check_python,
    "bash": _nothing,
    "node": _nothing,
    "jupyter": _nothing,
    "Makefile": _nothing,
}
