"""Runs tests against a copy of the package. Must itself import neither the package nor anything of the tests."""

import importlib
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMPORTED_BEFORE = (
    *("tests.contract.judge", "pytest", "hypothesis", "openai", "openai.types.beta", "qdrant_client", "fastapi"),
    *("pydantic_settings", "uvicorn", "alembic", "sqlalchemy.ext.asyncio", "sqlalchemy.dialects.postgresql"),
    *("asyncpg", "structlog", "prometheus_client"),
)
"""What takes long to import: a process that is forked from one that has it begins with it."""


def judge(copy: Path, output: Path, environment: dict[str, str], arguments: list[str]) -> None:
    """Become pytest, in a process that was forked for it. It is the copy that it imports, or it refuses."""
    os.chdir(ROOT)
    os.environ.update(environment)
    sys.path.insert(0, str(copy / "src"))
    with output.open("w", encoding="utf-8") as file:
        for standard in (1, 2):
            os.dup2(file.fileno(), standard)
    module = importlib.import_module("adlatus")
    if not Path(str(module.__file__)).is_relative_to(copy):
        sys.exit(f"{module.__file__} would be tested, which is not in {copy}")
    sys.exit(int(pytest.main(arguments)))
