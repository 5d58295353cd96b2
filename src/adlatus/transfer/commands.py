"""`adlatus import` and `adlatus export`: beside a server that runs, or alone."""

from collections.abc import Callable, Sequence
from pathlib import Path

from adlatus.files.keeping import quota_of
from adlatus.settings import Settings
from adlatus.store import projects
from adlatus.store.projects import NO_LIMITS
from adlatus.transfer import exporting
from adlatus.transfer.importing import import_files
from adlatus.transfer.opening import opened
from adlatus.transfer.reading import files_in


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
