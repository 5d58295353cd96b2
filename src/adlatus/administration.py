"""`adlatus keys` and `adlatus projects`: makes, lists, revokes keys; makes, lists, limits projects; prints for people.

What a script wants is on standard output, what a person is told besides on standard error.
"""

import argparse
import asyncio
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from adlatus.attaching import attached
from adlatus.errors import StartupError
from adlatus.ids import new_secret
from adlatus.settings import DEFAULT_PROJECT, Settings
from adlatus.store import keys, projects
from adlatus.store.db import Row

_PROJECT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHELL = "a letter or digit, then up to 63 letters, digits, dots, dashes or underscores"


def add_commands(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", common: argparse.ArgumentParser
) -> None:
    """Add both commands; `common` has the flags of all."""
    actions = commands.add_parser("keys", help="the keys of the API").add_subparsers(required=True, metavar="ACTION")
    creating = actions.add_parser("create", parents=[common], help="make a key and print it, this once")
    creating.add_argument(
        "--project", default=DEFAULT_PROJECT, type=_project, help=f"what it opens ({DEFAULT_PROJECT})"
    )
    creating.add_argument("--name", help="what it is for, to tell it from others")
    creating.set_defaults(run=_create_key)
    listing = actions.add_parser("list", parents=[common], help="list keys: never the keys themselves")
    listing.add_argument("--project", type=_project, help="of this project only")
    listing.set_defaults(run=_list_keys)
    revoking = actions.add_parser("revoke", parents=[common], help="let a key open nothing any more")
    revoking.add_argument("key", metavar="KEY_ID", help="its id, as `adlatus keys list` shows it")
    revoking.set_defaults(run=_revoke_key)

    actions = commands.add_parser("projects", help="projects and their limits").add_subparsers(
        required=True, metavar="ACTION"
    )
    making = actions.add_parser("create", parents=[common], help="make a project")
    making.add_argument("project", type=_project)
    making.set_defaults(run=_create_project)
    showing = actions.add_parser("list", parents=[common], help="list projects with their limits and keys")
    showing.set_defaults(run=_list_projects)
    limiting = actions.add_parser("limit", parents=[common], help="limit what a project may do; `none` lifts a limit")
    limiting.add_argument("project", type=_project)
    for name in projects.NAMES[:3]:
        limiting.add_argument(f"--{name.replace('_', '-')}", metavar="N", type=_count, default=argparse.SUPPRESS)
    limiting.add_argument("--storage-gb", metavar="N", type=_gigabytes, default=argparse.SUPPRESS, dest="storage_bytes")
    limiting.set_defaults(run=_limit_project)


def _create_key(arguments: argparse.Namespace, settings: Settings) -> int:
    secret = new_secret()

    async def create() -> tuple[str, bool]:
        async with attached(settings) as database, database.transaction() as tx:
            is_new = bool(await projects.ensure(tx, [arguments.project]))
            return (await keys.add(tx, arguments.project, secret, arguments.name))["id"], is_new

    key_id, is_new = asyncio.run(create())
    if is_new:
        _tell(f"The project {arguments.project} is new.")
    _tell(f"The key {key_id} opens the project {arguments.project}. Keep it: it is not shown again.")
    print(secret)
    return 0


def _list_keys(arguments: argparse.Namespace, settings: Settings) -> int:
    async def find() -> list[Row]:
        async with attached(settings) as database:
            return await keys.listed(database, arguments.project)

    rows = []
    for row in asyncio.run(find()):
        instants = [_when(row[name]) for name in ("created_at", "last_used_at", "revoked_at")]
        rows.append((row["id"], row["project_id"], row["shown"], *instants, row["name"] or ""))
    _print_table(("id", "project", "key", "created", "last used", "revoked", "name"), rows)
    if settings.keys:
        _tell(f"Besides, ADLATUS_API_KEYS has {len(settings.keys)}.")
    return 0


def _revoke_key(arguments: argparse.Namespace, settings: Settings) -> int:
    async def revoke() -> str:
        async with attached(settings) as database:
            row = await keys.revoke(database, arguments.key)
        if row is None:
            raise StartupError(f"there is no key '{arguments.key}': `adlatus keys list` shows the ids of all.")
        return f"The key {row['id']} of the project {row['project_id']} opens nothing any more, a few seconds from now."

    _tell(asyncio.run(revoke()))
    return 0


def _create_project(arguments: argparse.Namespace, settings: Settings) -> int:
    async def create() -> bool:
        async with attached(settings) as database:
            return bool(await projects.ensure(database, [arguments.project]))

    is_new = asyncio.run(create())
    _tell(f"The project {arguments.project} is {'made' if is_new else 'there already'}.")
    return 0


def _list_projects(_arguments: argparse.Namespace, settings: Settings) -> int:
    async def find() -> list[Row]:
        async with attached(settings) as database:
            return await projects.listed(database)

    rows = []
    for row in asyncio.run(find()):
        counts = ["-" if row[name] is None else str(row[name]) for name in projects.NAMES[:3]]
        storage = "-" if row["storage_bytes"] is None else f"{row['storage_bytes'] / 10**9:g}"
        rows.append((row["id"], _when(row["created_at"]), str(row["keys"]), *counts, storage))
    titles = ("project", "created", "keys", "requests/min", "tokens/min", "active runs", "storage GB")
    _print_table(titles, rows)
    return 0


def _limit_project(arguments: argparse.Namespace, settings: Settings) -> int:
    changes = {name: getattr(arguments, name) for name in projects.NAMES if hasattr(arguments, name)}
    if not changes:
        raise StartupError("no limit is given: see `adlatus projects limit --help`.")

    async def limit() -> None:
        async with attached(settings) as database:
            if await projects.limit(database, arguments.project, changes) is None:
                raise StartupError(
                    f"there is no project '{arguments.project}': make it with `adlatus projects create`."
                )

    asyncio.run(limit())
    _tell(f"The project {arguments.project} has these limits within a few seconds.")
    return 0


def _project(name: str) -> str:
    if not _PROJECT_NAME.fullmatch(name):
        raise argparse.ArgumentTypeError(f"'{name}' is no name of a project: {_SHELL}")
    return name


def _count(given: str) -> int | None:
    if given == "none":
        return None
    if not re.fullmatch(r"[0-9]{1,9}", given) or int(given) == 0:
        raise argparse.ArgumentTypeError(f"'{given}' is neither a whole number above 0 nor `none`")
    return int(given)


def _gigabytes(given: str) -> int | None:
    if given == "none":
        return None
    if not re.fullmatch(r"[0-9]{1,7}(\.[0-9]{1,9})?", given) or not (size_bytes := round(float(given) * 10**9)):
        raise argparse.ArgumentTypeError(f"'{given}' is neither a number above 0 nor `none`")
    return size_bytes


def _when(instant: int | None) -> str:
    return "-" if instant is None else datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in (titles, *rows):
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _tell(sentence: str) -> None:
    print(sentence, file=sys.stderr)
