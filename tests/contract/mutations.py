"""Deliberate wrong shapes, each caught by the contract test that its entry in `mutations.toml` names.

For every entry: a copy of the package in a temporary folder, one change in one of its files, and the named test run
against the copy by a process of its own, forked from one that has imported what the package depends on. The test must
fail, and for the reason that the entry expects. Before that all named tests must pass on a copy without a change.
"""

import asyncio
import re
import shutil
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import scratch_postgres
from tests.contract.judge import IMPORTED_BEFORE, judge
from tests.forks import forking

ROOT = Path(__file__).parents[2]
TESTS = Path("tests") / "contract"
SIDE_BY_SIDE = 2
RUN_TIMEOUT_S = 300
OPTIONS = ("-x", "-vv", "-rf", "--tb=short", "--no-header", "-p", "no:cacheprovider", "-p", "pytest_timeout")


@dataclass(frozen=True)
class Mutation:
    """A wrong shape: `old` becomes `new` in a file of the package, and `test` fails with a text that has `noticed`."""

    wrong: str
    kind: str
    file: str
    old: str
    new: str
    test: str
    noticed: str

    def spoiled(self) -> str:
        """The file with the change. Raises `ValueError` unless it has exactly one place for it."""
        text = (ROOT / "src" / "adlatus" / self.file).read_text("utf-8")
        if (places := text.count(self.old)) != 1:
            raise ValueError(f"{self.wrong}: {self.file} has {places} places in place of one with {self.old!r}")
        return text.replace(self.old, self.new)


MUTATIONS = tuple(
    Mutation(**entry) for entry in tomllib.loads((ROOT / TESTS / "mutations.toml").read_text("utf-8"))["mutation"]
)


@contextmanager
def copied(mutation: Mutation | None) -> Iterator[Path]:
    """A folder with the package and its migrations as in the checkout, but for the change.

    What is compiled already comes along; the changed file is compiled anew, because its time is another.
    """
    with tempfile.TemporaryDirectory(prefix="adlatus-mutation-") as name:
        folder = Path(name).resolve()
        for part in ("src", "migrations"):
            shutil.copytree(ROOT / part, folder / part)
        if mutation:
            (folder / "src" / "adlatus" / mutation.file).write_text(mutation.spoiled(), "utf-8")
        yield folder


def tested(copy: Path, tests: list[str], database_url: str) -> str:
    """What pytest prints when it runs tests against a copy, and then `exit code` and its number."""
    environment = {
        "ADLATUS_TEST_DATABASE_URL": database_url,
        "ADLATUS_TEST_REQUIRE": "reference",  # a skipped test catches nothing
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # they take a second to load
    }
    output = copy / "output"
    arguments = [*OPTIONS, *(str(TESTS / test) for test in tests)]
    process = forking(IMPORTED_BEFORE).Process(target=judge, args=(copy, output, environment, arguments))
    process.start()
    process.join(RUN_TIMEOUT_S)
    process.kill()
    process.join()
    return f"{output.read_text('utf-8')}exit code {process.exitcode}"


def is_caught(mutation: Mutation, output: str) -> bool:
    """Whether the named test failed, itself and for the expected reason."""
    failed = re.search(rf"^FAILED {re.escape(str(TESTS / mutation.test))}( - |$)", output, re.M)
    return bool(failed) and any(mutation.noticed in told for told in re.findall(r"^E .*", output, re.M))


def examine(mutation: Mutation, database_url: str) -> list[str]:
    """Print which test catches a mutation; what went wrong, with all that the test printed, if it does not."""
    with copied(mutation) as copy:
        output = tested(copy, [mutation.test], database_url)
    caught = is_caught(mutation, output)
    tell(mutation.wrong, mutation.test if caught else "NOTHING")
    return [] if caught else [f"{mutation.wrong}: {mutation.test} told nothing of {mutation.noticed!r}.\n{output}"]


def tell(wrong: str, caught_by: str) -> None:
    """Print a line of the table."""
    width = max(len(mutation.wrong) for mutation in MUTATIONS)
    print(f"{wrong:{width}} | {caught_by}", flush=True)


async def examine_all(mutations: Sequence[Mutation] = MUTATIONS) -> list[str]:
    """What went wrong: in the tests without any mutation, else with each mutation that is not caught."""
    faults: list[str] = []
    pending = iter(mutations)

    async def go_on(database_url: str) -> None:
        for mutation in pending:
            faults.extend(await asyncio.to_thread(examine, mutation, database_url))

    async with scratch_postgres() as database_url:
        with copied(None) as copy:
            tests = sorted({mutation.test for mutation in mutations})
            output = await asyncio.to_thread(tested, copy, tests, database_url)
        if not output.endswith("exit code 0"):
            return [f"The tests do not pass without any mutation.\n{output}"]
        tell("mutation", "caught by")
        async with asyncio.TaskGroup() as group:
            for _ in range(SIDE_BY_SIDE):
                group.create_task(go_on(database_url))
    return faults
