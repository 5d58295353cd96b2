"""One database for all tests of a file that look into it, emptied before each."""

from collections.abc import Callable, Iterator

import pytest

from adlatus.store.db import Database, open_database
from tests.conftest import Loop
from tests.runs.stored import execute


@pytest.fixture(scope="module")
def opened(loop: Loop, new_database: Callable[[], str]) -> Iterator[Database]:
    with loop.stack() as stack:
        yield loop.run(stack.enter_async_context(open_database(new_database())))


@pytest.fixture
def database(loop: Loop, opened: Database) -> Database:
    """An open, empty database with the project `default`; use it through `loop.run`."""
    loop.run(execute(opened, "TRUNCATE projects, run_events, executors CASCADE"))
    loop.run(execute(opened, "INSERT INTO projects (id) VALUES ('default')"))
    return opened


@pytest.fixture
def database_url(database: Database) -> str:
    """The DSN of that database, for servers."""
    return database.dsn
