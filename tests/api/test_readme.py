"""What the README and the docs show, works."""

import re
from pathlib import Path

import pytest

from adlatus.cli import _parser
from adlatus.runs.lifecycle import diagram
from tests.conftest import Server

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_six_lines_print_a_streamed_answer(
    server: Server, api_key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    [code] = re.findall(r"```python\n(.*?)```", README, re.S)
    assert 'base_url="http://127.0.0.1:8000/v1", api_key="any"' in code
    code = code.replace("http://127.0.0.1:8000/v1", server.base_url).replace('"any"', repr(api_key))
    exec(compile(code, "README.md", "exec"), {})
    assert "rehearsal model" in capsys.readouterr().out


def test_the_readme_names_every_command_and_no_other() -> None:
    named = set(re.findall(r"^\| `adlatus ([a-z]+)` \|", README, re.M))
    choices = next(action.choices for action in _parser()._actions if action.dest == "==SUPPRESS==" or action.choices)
    assert choices is not None
    assert named == set(choices)


def test_the_readme_names_only_make_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"^(?:[A-Z_]+=\S+ )*make ([a-z]+)", README, re.M)) <= targets


def test_the_documented_lifecycle_is_the_table() -> None:
    assert diagram() in (ROOT / "docs" / "compatibility.md").read_text()


def test_links_between_documents_lead_somewhere() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
