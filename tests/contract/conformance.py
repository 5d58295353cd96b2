"""The conformance table: for every operation of OpenAI's schema, what the suite has shown. Pure."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from tests.contract.operations import HANDED_ON
from tests.sdks.environments import Environment
from tests.witness import Operation, Witness

CLIENT = {"python": "Python", "node": "JS"}
"""How the SDK of a language names itself."""

RECORDED = 30
"""Operations that the recordings reach at least; fewer mean that they were not all replayed."""

_STORE = "/vector_stores/{vector_store_id}"
NO_RECORDING = {
    ("POST", "/threads/{thread_id}/runs/{run_id}"): "no recorded session modifies a run",
    ("POST", "/threads/{thread_id}/runs/{run_id}/cancel"): "no recorded session cancels a run",
    ("GET", _STORE): "no recorded session retrieves a vector store",
    ("POST", _STORE): "no recorded session modifies a vector store",
    ("POST", f"{_STORE}/search"): "no recorded session searches",
    ("GET", f"{_STORE}/files/{{file_id}}"): "no recorded session retrieves a file of one",
    ("POST", f"{_STORE}/files/{{file_id}}"): "no recorded session has attributes",
    ("GET", f"{_STORE}/files/{{file_id}}/content"): "no recorded session reads one",
    ("GET", f"{_STORE}/file_batches/{{batch_id}}"): "no recorded session retrieves a batch",
    ("POST", f"{_STORE}/file_batches/{{batch_id}}/cancel"): "no recorded session cancels a batch",
    ("POST", "/chat/completions"): "handed on",
    ("POST", "/embeddings"): "handed on",
}
"""Operations that exist, and that no recording whose endpoints all exist has reached."""

_PLACE = re.compile(r"(?<=<!-- conformance -->\n).*?(?=<!-- /conformance -->)", re.DOTALL)


@dataclass(frozen=True)
class Row:
    """What was shown of one operation. `recorded` counts recorded requests, `sdks` lists those that drove it."""

    operation: Operation
    done: bool
    valid: bool
    recorded: int
    sdks: tuple[str, ...]
    sdks_left: tuple[str, ...]


def judge(
    operations: Iterable[Operation],
    *,
    done: Collection[Operation],
    valid: Collection[Operation],
    witness: Witness,
    environments: Iterable[Environment],
) -> list[Row]:
    """A row for every operation, by path and method."""
    rows = []
    for operation in sorted(operations, key=lambda each: (each[1], each[0])):
        drove = witness.sdks.get(operation, set())
        sdks = {f"{each.language} {each.version}": (CLIENT[each.language], each.version) for each in environments}
        rows.append(
            Row(
                operation,
                done=operation in done,
                valid=operation in valid or operation in HANDED_ON,
                recorded=len(witness.recordings.get(operation, ())),
                sdks=tuple(name for name, client in sdks.items() if client in drove),
                sdks_left=tuple(name for name, client in sdks.items() if client not in drove),
            )
        )
    return rows


def holes(rows: Iterable[Row]) -> Iterator[str]:
    """What exists and has not been shown from every side."""
    for row in rows:
        if not row.done:
            continue
        if not row.valid:
            yield f"{row.operation}: no answer was compared with the schema"
        if bool(row.recorded) == (row.operation in NO_RECORDING):
            yield f"{row.operation}: {row.recorded} recorded requests"
        if row.sdks_left:
            yield f"{row.operation}: not driven by {', '.join(row.sdks_left)}"


def table(
    rows: Iterable[Row],
    not_yet: Mapping[Operation, str],
    not_offered: Mapping[Operation, str],
    extensions: Mapping[Operation, str],
) -> str:
    """The table, and what stands below it."""
    lines = [
        "| Operation | State | Schema | Recorded requests | SDKs |",
        "|---|---|---|---|---|",
        *(f"| `{' '.join(row.operation)}` | {_state(row, not_yet, not_offered)} |" for row in rows),
        "",
        *(f"- `{' '.join(operation)}` is not offered: {reason}." for operation, reason in not_offered.items()),
        *(f"- `{' '.join(operation)}` is an extension: {reason}." for operation, reason in extensions.items()),
    ]
    return "\n".join(lines) + "\n"


def _state(row: Row, not_yet: Mapping[Operation, str], not_offered: Mapping[Operation, str]) -> str:
    recorded = str(row.recorded or NO_RECORDING.get(row.operation, ""))
    if row.operation in not_offered:
        return f"not offered |  | {recorded} | "
    if not row.done:
        assert row.operation in not_yet
        return "not yet |  |  | "
    schema = "valid, of the rehearsal model" if row.operation in HANDED_ON else "valid" if row.valid else ""
    return f"done | {schema} | {recorded} | {'all' if not row.sdks_left else ', '.join(row.sdks)}"


def placed(document: str, table: str) -> str:
    """The document with the table between its marks."""
    written, places = _PLACE.subn(lambda _: table, document)
    assert places == 1
    return written
