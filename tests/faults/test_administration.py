"""`adlatus keys` and `adlatus projects`, beside a server that runs and where none does."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from adlatus.cli import _parser, _settings
from adlatus.errors import StartupError
from adlatus.settings import Settings
from tests.conftest import BETA
from tests.faults.processes import data_folder, outputs, postmasters, serve
from tests.runs.transcripts import eventually

Said = tuple[str, str]
"""What a command says on standard output, and on standard error."""
Command = Callable[..., Said]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with data_folder() as folder:
        yield folder


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command as the command line does, but in this process, which saves its start."""

    def run(*words: str, settings: Settings | None = None) -> Said:
        capsys.readouterr()
        arguments = _parser().parse_args(words)
        assert arguments.run(arguments, settings or _settings(arguments)) == 0
        return capsys.readouterr()

    return run


def table(output: str) -> list[dict[str, str]]:
    """The rows of a table as it is printed."""
    titles, *rows = [re.split(r" {2,}", line) for line in output.splitlines()]
    return [dict(zip(titles, row, strict=False)) for row in rows]


@pytest.mark.slow
def test_a_key_is_made_used_and_revoked_and_the_server_runs_on(folder: Path, command: Command) -> None:
    here = ("--data-dir", str(folder))
    code, output, told = outputs("keys", "create", *here, "--name", "first key")
    assert code == 0, told
    secret = output.removesuffix("\n")
    assert re.fullmatch(r"sk-[A-Za-z0-9]{48}", secret)
    assert secret not in told
    assert "opens the project default" in told
    assert postmasters(folder) == []
    with serve(folder, "--host", "0.0.0.0") as server:
        url = f"{server.url.replace('0.0.0.0', '127.0.0.1')}/v1/threads"

        def status(key: str | None) -> int:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            return httpx.get(url, headers=BETA | headers, timeout=30).status_code

        assert (status(None), status("sk-other"), status(secret)) == (401, 401, 200)
        output, told = command("keys", "create", *here, "--project", "blue")
        other = output.strip()
        assert "The project blue is new." in told
        assert status(other) == 200
        first, second = table(command("keys", "list", *here)[0])
        assert (first["project"], first["key"], first["name"]) == ("default", f"sk-…{secret[-4:]}", "first key")
        assert (second["project"], second["key"], second["revoked"]) == ("blue", f"sk-…{other[-4:]}", "-")
        assert table(command("keys", "list", *here, "--project", "blue")[0])[0]["id"] == second["id"]
        assert "opens nothing any more" in command("keys", "revoke", second["id"], *here)[1]
        assert eventually(lambda: status(other) == 401)
        assert status(secret) == 200
        command("projects", "limit", "default", *here, "--requests-per-minute", "1", "--storage-gb", "1.5")
        assert eventually(lambda: status(secret) == 429)
        shown = {row["project"]: row for row in table(command("projects", "list", *here)[0])}
        assert (shown["default"]["requests/min"], shown["default"]["storage GB"]) == ("1", "1.5")
        assert (shown["default"]["keys"], shown["blue"]["keys"], shown["blue"]["requests/min"]) == ("1", "0", "-")
        command("projects", "limit", "default", *here, "--requests-per-minute", "none")
        assert eventually(lambda: status(secret) == 200)
        assert secret not in server.log
        assert other not in server.log
        assert server.stop() == 0
    first, second = table(command("keys", "list", *here)[0])
    assert first["last used"] != "-"
    assert second["revoked"] != "-"
    assert postmasters(folder) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("keys", "revoke", "key_nothing"), "there is no key 'key_nothing': `adlatus keys list`"),
        (("projects", "limit", "nobody", "--active-runs", "1"), "`adlatus projects create`"),
        (("projects", "limit", "default"), "no limit is given"),
    ],
)
def test_what_cannot_be_done_is_told_with_advice(
    database_url: str, command: Command, words: tuple[str, ...], expected: str
) -> None:
    with pytest.raises(StartupError, match=re.escape(expected)):
        command(*words, settings=Settings(database_url=database_url))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("projects", "limit", "default", "--active-runs", "0"), "'0' is neither a whole number above 0 nor `none`"),
        (("projects", "limit", "default", "--tokens-per-minute", "many"), "'many' is neither a whole number above 0"),
        (("projects", "limit", "default", "--requests-per-minute", "1" * 12), "is neither a whole number above 0"),
        (("projects", "limit", "default", "--storage-gb", "0.0000000001"), "neither a number above 0 nor `none`"),
        (("projects", "limit", "default", "--storage-gb", "nan"), "'nan' is neither a number above 0 nor `none`"),
        (("projects", "create", "a:b"), "'a:b' is no name of a project"),
        (("projects", "create", "x" * 65), "is no name of a project: a letter or digit, then up to 63"),
        (("keys", "create", "--project", "ä"), "'ä' is no name of a project"),
    ],
)
def test_what_is_no_limit_and_no_project_is_refused(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], expected: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        _parser().parse_args(words)
    assert ended.value.code == 2
    assert expected in capsys.readouterr().err


def test_a_database_of_ones_own_that_is_not_migrated_is_told(
    new_database: Callable[..., str], command: Command
) -> None:
    with pytest.raises(StartupError, match=r"is at revision none, not at \d+: run `adlatus migrate` first"):
        command("keys", "create", settings=Settings(database_url=new_database(empty=True)))


def test_a_database_that_does_not_answer_is_told(command: Command) -> None:
    nowhere = Settings(database_url="postgresql://nobody:s3cret@127.0.0.1:1/none")
    with pytest.raises(StartupError, match="cannot connect to the database") as refused:
        command("keys", "list", settings=nowhere)
    assert "s3cret" not in str(refused.value)


def test_a_project_is_made_once(database_url: str, command: Command) -> None:
    settings = Settings(database_url=database_url)
    assert "is made" in command("projects", "create", "team-blue.2", settings=settings)[1]
    assert "is there already" in command("projects", "create", "team-blue.2", settings=settings)[1]
    [row] = table(command("projects", "list", settings=settings)[0])
    assert row["project"] == "team-blue.2"
