"""Writes objects from files into a project, with the ids and times that they had.

1. All files are read, what is no object is told, and the rest is kept in temporary tables.
2. What lists have in one second is put in the order in which it was listed.
3. Kind by kind, those that others need first, objects are compared with what is there, and written a page at a time.
4. What is named and not there is told.

Repeated, it goes on where it was stopped, and changes nothing where it was not.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from adlatus.errors import shortened
from adlatus.store import bulk, leases, staging
from adlatus.store.db import Connection, Row
from adlatus.transfer.bytes import Kept, NoBytes, keep, located
from adlatus.transfer.kinds import BY_NAME, KINDS, Kind, Reference
from adlatus.transfer.opening import Opened
from adlatus.transfer.reading import Found, read
from adlatus.transfer.report import Outcome, Report
from adlatus.validation import from_validation
from adlatus.wire.common import Json
from adlatus.wire.exports import Exported, ExportedFile

PAGE = 200
PAGE_BYTES = 8 * 2**20
_MADE_FOR = ("thread.message", "thread.run")
"""Kinds whose thread is made where it is not there: lists of messages were all that could be had of many."""


@dataclass
class _Planned:
    """An object on its way: what was sent, the row that it becomes, and where it stood."""

    source: str
    folder: Path
    sent: Exported
    row: Json


async def import_files(
    opened: Opened,
    project_id: str,
    paths: Iterable[Path],
    *,
    quota_bytes: int | None = None,
    dry_run: bool = False,
    say: Callable[[str], None],
) -> Report:
    """Import the objects of files. Raises `StartupError` where one cannot be read."""
    report = Report(say)
    await staging.create(opened.database)
    await _stage(opened.database, paths, report)
    await staging.put_in_order(opened.database)
    if not dry_run:
        await bulk.add_project(opened.database, project_id)
    writing = _Writing(opened, project_id, quota_bytes, report, dry_run)
    for kind in KINDS:
        await writing.write(kind)
    await writing.tell_missing()
    return report


# --- Reading


async def _stage(connection: Connection, paths: Iterable[Path], report: Report) -> None:
    items: list[staging.Item] = []
    size_bytes = 0
    found = (each for path in paths for each in read(path))
    for position, each in enumerate(found, 1):
        if item := _item(each, position, report):
            items.append(item)
            size_bytes += each.size_bytes
        if len(items) == PAGE or size_bytes > PAGE_BYTES:
            report.repeated += await staging.add(connection, items)
            items, size_bytes = [], 0
    if items:
        report.repeated += await staging.add(connection, items)


def _item(found: Found, position: int, report: Report) -> staging.Item | None:
    """What is to be kept of something that was read; None, and told, where it is not imported."""
    value = found.value
    if value is None:
        report.not_read(found.where, found.problem)
        return None
    name = value.get("object")
    if not isinstance(name, str):
        report.not_read(found.where, "its 'object' should say what it is, such as \"thread.message\"")
        return None
    kind = BY_NAME.get(name)
    if kind is None or value.get("deleted") is True:  # of a file, what tells of its deletion is a `file` too
        report.passed_over[shortened(name) if kind is None else f"{name}.deleted"] += 1
        return None
    sent = {field: value[field] for field in kind.model.model_fields if field in value}
    if (problem := _problem(kind, sent)) is not None:
        report.refuse(kind.name, found.where, shortened(str(value.get("id"))), problem)
        return None
    return staging.Item(
        kind.name,
        kind.key(sent),
        kind.scope(sent),
        sent["created_at"],
        position,
        found.in_page,
        found.where,
        str(found.folder),
        sent,
    )


def _problem(kind: Kind, sent: Json) -> str | None:
    try:
        kind.model.model_validate(sent)
    except ValidationError as error:
        return from_validation(error.errors(), sent).message
    return None


# --- Writing


@dataclass
class _Writing:
    """The import of what is kept into one project."""

    opened: Opened
    project_id: str
    quota_bytes: int | None
    report: Report
    dry_run: bool
    made: set[str] = field(default_factory=set)

    async def write(self, kind: Kind) -> None:
        """Write all objects of a kind, in their order."""
        database, after = self.opened.database, 0
        while page := await staging.page(database, kind.name, after, PAGE):
            after = page[-1]["place"]
            planned = await self._new(kind, [_planned(kind, row) for row in page])
            if kind.model is ExportedFile:
                written = [each for each in planned if await self._write_file(each)]
            elif self.dry_run:
                written = await self._fitting(database, kind, planned)
            else:
                written = await self._write_rows(kind, planned)
            self.report.count(kind.name, Outcome.CREATED, len(written))
            there = {kind.key(each.row) for each in written}
            if lost := [kind.key(each.row) for each in planned if kind.key(each.row) not in there]:
                await staging.drop(database, kind.name, lost)
            named = [(*name, each.source) for each in written for name in _named(kind, each)]
            await staging.want(database, named)

    async def _new(self, kind: Kind, planned: list[_Planned]) -> list[_Planned]:
        """Those that are not there yet; of the others it is told whether they are the same."""
        keys = [[each.row[name] for name in kind.keys] for each in planned]
        existing = {kind.key(row): row for row in await bulk.existing(self.opened.database, kind.table, keys)}
        new, foreign = [], []
        for each in planned:
            key = kind.key(each.row)
            row = existing.get(key)
            if row is None:
                new.append(each)
            elif row["project_id"] != self.project_id:
                foreign.append(key)
                self._refuse(kind, each, "another project has it, and ids are of one object only")
            elif differing := kind.differing(row, each.row):
                self.report.keep(kind.name, each.source, key, differing)
            else:
                self.report.count(kind.name, Outcome.UNCHANGED)
        await staging.drop(self.opened.database, kind.name, foreign)
        return new

    async def _write_rows(self, kind: Kind, planned: list[_Planned]) -> list[_Planned]:
        async with self.opened.database.transaction() as tx:
            fitting = await self._fitting(tx, kind, planned)
            rows = [each.row | {"project_id": self.project_id} for each in fitting]
            added = await bulk.add(tx, kind.table, rows)
            if kind.name == "vector_store.file":
                await leases.wake(tx)
        written = []
        for each in fitting:
            if tuple(each.row[name] for name in kind.keys) in added:
                written.append(each)
            else:
                self._refuse(kind, each, "somebody else has made it just now")
        return written

    async def _write_file(self, planned: _Planned) -> bool:
        kind, sent = BY_NAME["file"], planned.sent
        assert isinstance(sent, ExportedFile)
        if sent.expires_at is not None and sent.expires_at <= time.time():
            self.report.passed_over["expired file"] += 1
            return False
        try:
            path = located(planned.folder, sent)
            if not self.dry_run:
                await keep(self.opened, Kept(self.project_id, planned.row, path, self.quota_bytes))
        except NoBytes as error:
            self._refuse(kind, planned, str(error))
            return False
        return True

    async def _fitting(self, connection: Connection, kind: Kind, planned: list[_Planned]) -> list[_Planned]:
        """Those whose parents are there, as long as the transaction lasts; the others are refused."""
        for column, name in kind.parents.items():
            parent = BY_NAME[name]
            ids = {each.row[column] for each in planned if each.row[column] is not None}
            projects = await bulk.projects_of(connection, parent.table, ids)
            there = {object_id for object_id, project_id in projects.items() if project_id == self.project_id}
            if self.dry_run:
                there |= await staging.there(connection, name, sorted(ids)) | self.made
            if kind.name in _MADE_FOR:
                there |= await self._make_threads(connection, planned, ids - there - projects.keys())
            planned = [each for each in planned if self._has_parent(kind, each, column, there, projects.keys())]
        return planned

    def _has_parent(self, kind: Kind, each: _Planned, column: str, there: set[str], of_others: Iterable[str]) -> bool:
        """Whether an object's parent is there. A batch may be missing, its file is of no batch then."""
        parent_id, name = each.row[column], kind.parents[column]
        if parent_id is None or parent_id in there:
            return True
        if column == "batch_id":
            each.row[column] = None
            return True
        whose = "is another project's" if parent_id in of_others else "is not there"
        self._refuse(kind, each, f"the {name} {parent_id} that it belongs to {whose}")
        return False

    async def _make_threads(self, connection: Connection, planned: list[_Planned], ids: set[str]) -> set[str]:
        """Make threads of some ids, each as old as the first object that names it."""
        first: dict[str, int] = {}
        for each in planned:
            first.setdefault(each.row["thread_id"], each.row["created_at"])
        rows = [
            {
                "id": thread_id,
                "project_id": self.project_id,
                "created_at": first[thread_id],
                "metadata": {},
                "tool_resources": {},
            }
            for thread_id in first
            if thread_id in ids
        ]
        if not self.dry_run:
            await bulk.add(connection, BY_NAME["thread"].table, rows)
        self.made |= ids
        self.report.made_threads += len(rows)
        return ids

    def _refuse(self, kind: Kind, each: _Planned, reason: str) -> None:
        self.report.refuse(kind.name, each.source, kind.key(each.row), reason)

    async def tell_missing(self) -> None:
        """Tell what objects name that is not there."""
        for kind in KINDS:
            if "id" not in kind.keys or len(kind.keys) > 1:
                continue
            missing = await staging.missing(
                self.opened.database, kind.name, kind.table, self.project_id, planned=self.dry_run
            )
            for row in missing:
                self.report.say(f"{row['source']}: names the {kind.name} {row['key']}, which is not there")
            self.report.missing += len(missing)


def _planned(kind: Kind, row: Row) -> _Planned:
    sent = kind.model.model_validate(row["object"])
    return _Planned(row["source"], Path(row["folder"]), sent, kind.row(sent))


def _named(kind: Kind, each: _Planned) -> list[Reference]:
    named = list(kind.references(each.row))
    if batch_id := getattr(each.sent, "batch_id", None):
        named.append(("vector_store.file_batch", batch_id))
    return named
