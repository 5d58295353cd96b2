"""The kinds of objects that are transferred, in the order in which they need one another, and the rows they become.

Pure. What has not ended in an export has ended here: nobody works on it any more.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table

from adlatus.store import tables
from adlatus.store.tables import ENDED
from adlatus.wire.assistants import DEFAULTS
from adlatus.wire.common import Json
from adlatus.wire.exports import (
    Exported,
    ExportedAssistant,
    ExportedBatch,
    ExportedFile,
    ExportedMessage,
    ExportedRun,
    ExportedStep,
    ExportedStoreFile,
    ExportedThread,
    ExportedVectorStore,
)
from adlatus.wire.messages import IncompleteReason, MessageStatus
from adlatus.wire.runs import RunStatus
from adlatus.wire.steps import StepStatus
from adlatus.wire.vector_stores import DEFAULT_CHUNKING, FileStatus

Reference = tuple[str, str]
"""Another object that one names: its kind and its id."""

_LOST = {"code": "server_error", "message": "Sorry, something went wrong."}


@dataclass(frozen=True)
class Kind:
    """One kind. `name` is its `object` in JSON, `stem` the name of its file in exports.

    `parents` are columns that lead to rows which have to be there, by their kinds; `references` are other objects that
    may be missing. `moving` are columns that go on by themselves: they are not compared.
    """

    name: str
    stem: str
    table: Table
    model: type[Exported]
    row: Callable[[Any], Json]
    parents: Mapping[str, str]
    references: Callable[[Json], Iterator[Reference]]
    moving: frozenset[str] = frozenset()

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.table.primary_key.columns)

    def key(self, row: Mapping[str, Any]) -> str:
        """What tells an object or a row from all others of its kind."""
        return "/".join(row[name] for name in self.keys)

    def differing(self, row: Mapping[str, Any], wanted: Json) -> list[str]:
        """The columns in which a row is not what it would be."""
        compared = (name for name in wanted if name not in self.moving)
        return [name for name in compared if _comparable(row[name]) != _comparable(wanted[name])]

    def scope(self, sent: Mapping[str, Any]) -> str:
        """Among what an object is listed."""
        return str(next((sent[name] for name in reversed(tuple(self.parents)) if name in sent), ""))


def _comparable(value: Any) -> Any:
    """A value without the empty entry of a code interpreter, which threads show and need not have."""
    if isinstance(value, dict) and value.get("code_interpreter") == {"file_ids": []}:
        return {name: each for name, each in value.items() if name != "code_interpreter"}
    return value


def _of_tools(row: Json) -> Iterator[Reference]:
    resources = row["tool_resources"]
    for file_id in resources.get("code_interpreter", {}).get("file_ids", ()):
        yield "file", file_id
    for store_id in resources.get("file_search", {}).get("vector_store_ids", ()):
        yield "vector_store", store_id


def _of_message(row: Json) -> Iterator[Reference]:
    for part in row["content"]:
        if part["type"] == "image_file":
            yield "file", part["image_file"]["file_id"]
    for attachment in row["attachments"]:
        yield "file", attachment["file_id"]
    for kind, column in (("assistant", "assistant_id"), ("thread.run", "run_id")):
        if row[column]:
            yield kind, row[column]


def _of_run(row: Json) -> Iterator[Reference]:
    yield "assistant", row["assistant_id"]


def _none(_row: Json) -> Iterator[Reference]:
    yield from ()


def _plain(sent: Exported, *left_out: str) -> Json:
    return sent.model_dump(mode="json", exclude=set(left_out))


def _filled(sent: Exported, defaults: Json) -> Json:
    row = _plain(sent)
    return row | {name: value for name, value in defaults.items() if row.get(name) is None}


def _assistant(sent: ExportedAssistant) -> Json:
    # Models that reason have no temperature: null is kept
    return _filled(sent, {name: DEFAULTS[name] for name in ("tools", "tool_resources", "metadata", "response_format")})


def _thread(sent: ExportedThread) -> Json:
    return _filled(sent, {"tool_resources": {}, "metadata": {}})


def _message(sent: ExportedMessage) -> Json:
    row = _filled(sent, {"status": MessageStatus.COMPLETED, "attachments": [], "metadata": {}})
    if row["status"] == MessageStatus.IN_PROGRESS:
        row |= {"status": MessageStatus.INCOMPLETE, "incomplete_details": {"reason": IncompleteReason.RUN_EXPIRED}}
    status = MessageStatus(row["status"])
    row["completed_at"] = (row["completed_at"] or sent.created_at) if status is MessageStatus.COMPLETED else None
    incomplete = status is MessageStatus.INCOMPLETE
    row["incomplete_at"] = (row["incomplete_at"] or sent.created_at) if incomplete else None
    details = row["incomplete_details"] or {"reason": IncompleteReason.RUN_FAILED}
    row["incomplete_details"] = {"reason": str(details["reason"])} if incomplete else None
    return row | {"status": status.value}


_RUN_DEFAULTS: Json = {
    "tools": [],
    "tool_resources": {},
    "metadata": {},
    "truncation_strategy": {"type": "auto", "last_messages": None},
    "response_format": "auto",
    "tool_choice": "auto",
    "parallel_tool_calls": True,
}


def _run(sent: ExportedRun) -> Json:
    row = _filled(sent, _RUN_DEFAULTS) | {"expires_at": None, "required_action": None}
    status = sent.status
    if status not in ENDED:
        status = RunStatus.CANCELLED if status is RunStatus.CANCELLING else RunStatus.EXPIRED
    ended_at = sent.completed_at or sent.cancelled_at or sent.failed_at or sent.started_at or sent.created_at
    for ending in (RunStatus.COMPLETED, RunStatus.CANCELLED, RunStatus.FAILED):
        column = f"{ending}_at"
        row[column] = (row[column] or ended_at) if status is ending else None
    if status in (RunStatus.COMPLETED, RunStatus.INCOMPLETE):
        row["started_at"] = row["started_at"] or sent.created_at
    if status is RunStatus.FAILED:
        row["last_error"] = row["last_error"] or _LOST
    unknown = {"reason": "max_completion_tokens"}
    row["incomplete_details"] = (row["incomplete_details"] or unknown) if status is RunStatus.INCOMPLETE else None
    return row | {"status": status.value}


_CALL_DEFAULTS: Mapping[str, Json] = {
    "function": {"arguments": "", "output": None},
    "code_interpreter": {"input": "", "outputs": []},
    "file_search": {"results": []},
}
"""What older exports have not, and is relied on."""


def _details(details: Json) -> Json:
    if details["type"] == "message_creation":
        return details
    calls = []
    for call in details.get("tool_calls", ()):
        kind = call["type"]
        absent = {name: value for name, value in _CALL_DEFAULTS[kind].items() if call[kind].get(name) is None}
        calls.append({**call, kind: {**call[kind], **absent}})
    return {**details, "tool_calls": calls}


def _step(sent: ExportedStep) -> Json:
    row = _filled(sent, {"metadata": {}})
    row["step_details"] = _details(row["step_details"])
    status = StepStatus.EXPIRED if sent.status is StepStatus.IN_PROGRESS else sent.status
    ended_at = sent.completed_at or sent.cancelled_at or sent.failed_at or sent.expired_at or sent.created_at
    for ending in (StepStatus.COMPLETED, StepStatus.CANCELLED, StepStatus.FAILED, StepStatus.EXPIRED):
        column = f"{ending}_at"
        row[column] = (row[column] or ended_at) if status is ending else None
    return row | {"status": status.value}


def _file(sent: ExportedFile) -> Json:
    return _plain(sent, "path") | {"purpose": sent.purpose.value}


def _store(sent: ExportedVectorStore) -> Json:
    days = sent.expires_after.days if sent.expires_after else None
    row = _plain(sent, "expires_after") | {"expires_after_days": days, "metadata": sent.metadata or {}}
    return row | {"last_active_at": sent.created_at if sent.last_active_at is None else sent.last_active_at}


def _batch(sent: ExportedBatch) -> Json:
    cancelled_at = sent.created_at if sent.status == "cancelled" else None
    return _plain(sent, "status") | {"cancelled_at": cancelled_at}


def _store_file(sent: ExportedStoreFile) -> Json:
    row = _filled(sent, {"chunking_strategy": DEFAULT_CHUNKING, "attributes": {}})
    status = FileStatus.IN_PROGRESS if sent.status is FileStatus.COMPLETED else sent.status  # it is indexed anew
    failed = status is FileStatus.FAILED
    return row | {"status": status.value, "last_error": (row["last_error"] or _LOST) if failed else None}


KINDS: tuple[Kind, ...] = (
    Kind("file", "files", tables.files, ExportedFile, _file, {}, _none, frozenset({"expires_at"})),
    Kind(
        "vector_store",
        "vector_stores",
        tables.vector_stores,
        ExportedVectorStore,
        _store,
        {},
        _none,
        frozenset({"last_active_at"}),
    ),
    Kind(
        "vector_store.file_batch",
        "vector_store_file_batches",
        tables.vector_store_file_batches,
        ExportedBatch,
        _batch,
        {"vector_store_id": "vector_store"},
        _none,
        frozenset({"cancelled_at"}),
    ),
    Kind(
        "vector_store.file",
        "vector_store_files",
        tables.vector_store_files,
        ExportedStoreFile,
        _store_file,
        {"id": "file", "batch_id": "vector_store.file_batch", "vector_store_id": "vector_store"},
        _none,
        frozenset({"status", "last_error"}),
    ),
    Kind("assistant", "assistants", tables.assistants, ExportedAssistant, _assistant, {}, _of_tools),
    Kind("thread", "threads", tables.threads, ExportedThread, _thread, {}, _of_tools),
    Kind(
        "thread.message",
        "messages",
        tables.messages,
        ExportedMessage,
        _message,
        {"thread_id": "thread"},
        _of_message,
    ),
    Kind("thread.run", "runs", tables.runs, ExportedRun, _run, {"thread_id": "thread"}, _of_run),
    Kind(
        "thread.run.step",
        "run_steps",
        tables.run_steps,
        ExportedStep,
        _step,
        {"thread_id": "thread", "run_id": "thread.run"},
        _none,
    ),
)
"""In the order in which they are written: nothing refers to what comes after it, but by `references`."""

BY_NAME: Mapping[str, Kind] = {kind.name: kind for kind in KINDS} | {
    "vector_store.files_batch": next(kind for kind in KINDS if kind.name == "vector_store.file_batch")
}
