"""Frameworks on top of the SDK, by the lines of docs/migrating.md, each in an environment of its own."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Server
from tests.docs.documents import Document
from tests.sdks.environments import python_with

FRAMEWORKS = {
    "langchain": ("from langchain_classic", ("langchain-classic==1.0.8", "openai==3.54.0"), ""),
    "semantic-kernel": (
        "semantic_kernel",
        ("semantic-kernel==1.45.0", "wheel"),
        "import asyncio\nprint(asyncio.run(ask('What is 3 + 4?')))\n",
    ),
}
"""What tells the block of the document, what it needs, and what uses it where it only defines."""


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_lines_to_migrate_work(framework: str, server: Server, api_key: str, tmp_path: Path) -> None:
    mark, requirements, use = FRAMEWORKS[framework]
    [block] = [block.text for block in Document("docs/migrating.md").blocks() if mark in block.text]
    code = block.replace("http://127.0.0.1:8000", server.url).replace('"any"', repr(api_key))
    program = tmp_path / "migrated.py"
    program.write_text(code + use, "utf-8")
    done = subprocess.run(
        [python_with(framework, *requirements), "-I", program],
        env={"PATH": os.defpath, "HOME": str(tmp_path)},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "rehearsal model" in done.stdout
