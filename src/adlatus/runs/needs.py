"""What a run needs of its executor, and whether there is one that has it."""

from collections.abc import Collection

from adlatus.errors import InvalidRequest
from adlatus.store import executors, sandbox_sessions, turns
from adlatus.store.db import Connection, Row, Transaction
from adlatus.store.executors import Ability
from adlatus.store.leases import Claim
from adlatus.wire.common import Json

_NEEDED_BY = {"file_search": Ability.SEARCH, "code_interpreter": Ability.SANDBOX}
_NO_INDEX = (
    "This run may search files, but no process that executes runs reaches the index of files. Set ADLATUS_QDRANT_URL "
    "for all of them, or let the server whose data folder has the index execute runs."
)
_NO_SANDBOX = "This run may use the code interpreter, which is not available here."
_NOT_IN_ONE = "This run needs {needs}, but no process that executes runs has all of that."


def of(tools: list[Json], tool_choice: str | Json) -> list[Ability]:
    """What an executor must be able to do for a run with these tools. Pure."""
    if tool_choice == "none":
        return []
    return sorted({_NEEDED_BY[tool["type"]] for tool in tools if tool["type"] in _NEEDED_BY})


async def check(connection: Connection, needs: Collection[Ability], claim: Claim | None) -> None:
    """Refuse a run that no live executor is able to execute. Raises `InvalidRequest` with the reason.

    Where nothing executes runs at the moment, whoever comes may be able to: the run waits, as any other.
    """
    if not needs or _fits(claim, needs):
        return
    live = await executors.of_runs(connection)
    if live and not any(executors.is_able(executor, needs) for executor in live):
        raise InvalidRequest(_reason(live, needs), param="tools")


async def fitting(
    connection: Connection, claim: Claim | None, project_id: str, thread_id: str, needs: Collection[Ability]
) -> Claim | None:
    """The claim, unless its executor cannot do what the run needs, another one has the thread's sandbox, or the project
    has no place for a run more.
    """
    if claim is None or not _fits(claim, needs):
        return None
    if Ability.SANDBOX in needs and await sandbox_sessions.is_elsewhere(connection, thread_id, claim.owner):
        return None
    if claim.per_project is not None:
        assert isinstance(connection, Transaction), "a place that was found is held until the run has it"
        if not await turns.has_place(connection, project_id, claim.per_project):
            return None
    return claim


def _fits(claim: Claim | None, needs: Collection[Ability]) -> bool:
    return claim is not None and claim.abilities.issuperset(needs)


def _reason(live: list[Row], needs: Collection[Ability]) -> str:
    """What is missing, and what to do about it."""
    lacking = [need for need in needs if not any(executor[need] for executor in live)]
    if Ability.SANDBOX in lacking:
        problems = dict.fromkeys(executor["sandbox_problem"] for executor in live if executor["sandbox_problem"])
        return " ".join([_NO_SANDBOX, *(f"{problem.rstrip('.')}." for problem in problems)])
    if Ability.SEARCH in lacking:
        return _NO_INDEX
    return _NOT_IN_ONE.format(needs=" and ".join(needs))
