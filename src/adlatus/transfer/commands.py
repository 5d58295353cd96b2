"""`adlatus import` and `adlatus export`: beside a server that runs, or alone."""

import argparse
import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from adlatus.files.keeping import quota_of
from adlatus.settings import DEFAULT_PROJECT, Settings
from adlatus.store import projects
from adlatus.store.projects import NO_LIMITS
from adlatus.transfer import exporting
from adlatus.transfer.importing import import_files
from adlatus.transfer.opening import opened
from adlatus.transfer.reading import files_in


def add_commands(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", common: argparse.ArgumentParser
) -> None:
    """Add both commands; `common` has the flags of all."""
    bringing = commands.add_parser("import", parents=[common], help="bring objects in from files, ids preserved")
    bringing.add_argument("paths", type=Path, nargs="+", metavar="FILE", help="JSON or JSONL file, or a folder of them")
    bringing.add_argument("--project", default=DEFAULT_PROJECT, help="where they are to be (default)")
    bringing.add_argument("--dry-run", action="store_true", help="only tell what would be done")
    bringing.set_defaults(run=_import)

    taking = commands.add_parser("export", parents=[common], help="write all objects of a project to a folder")
    taking.add_argument("folder", type=Path, metavar="FOLDER", help="new, empty, or of an earlier export")
    taking.add_argument("--project", default=DEFAULT_PROJECT, help="whose objects (default)")
    taking.set_defaults(run=_export)


def _import(arguments: argparse.Namespace, settings: Settings) -> int:
    work = bring(settings, arguments.project, arguments.paths, dry_run=arguments.dry_run, say=print)
    return asyncio.run(work)


def _export(arguments: argparse.Namespace, settings: Settings) -> int:
    return asyncio.run(take(settings, arguments.project, arguments.folder, say=print))


async def bring(
    settings: Settings, project_id: str, paths: Sequence[Path], *, dry_run: bool, say: Callable[[str], None]
) -> int:
    """Import, and tell what was done; the exit code."""
    found = files_in(paths)  # before a database is started
    async with opened(settings) as target:
        limits = (await projects.limited(target.database)).get(project_id, NO_LIMITS)
        quota_bytes = quota_of(settings, limits)
        report = await import_files(target, project_id, found, quota_bytes=quota_bytes, dry_run=dry_run, say=say)
    for line in report.lines(dry_run=dry_run):
        say(line)
    return 1 if report.refused else 0


async def take(settings: Settings, project_id: str, folder: Path, *, say: Callable[[str], None]) -> int:
    """Export, and tell what there was; the exit code."""
    async with opened(settings) as source:
        counts = await exporting.export(source, project_id, folder, say)
    for line in exporting.lines(counts):
        say(line)
    say(f"The objects of project '{project_id}' are in {folder}.")
    return 0
