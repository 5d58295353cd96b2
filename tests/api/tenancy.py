"""Keys and limits of projects, as an operator makes them while servers run."""

from adlatus.ids import new_secret
from adlatus.store import keys, projects
from adlatus.store.db import Row
from tests.conftest import Server


def make_key(server: Server, project_id: str = "default", name: str | None = None) -> tuple[str, Row]:
    """A new key of a project in the database, and its row."""
    secret = new_secret()

    async def make() -> Row:
        async with server.resources.database.transaction() as tx:
            await projects.ensure(tx, [project_id])
            return await keys.add(tx, project_id, secret, name)

    return secret, server.loop.run(make())


def limit(server: Server, project_id: str, **limits: int | None) -> None:
    """Change limits of a project, and let the server know."""
    resources = server.resources
    assert server.loop.run(projects.limit(resources.database, project_id, limits))
    server.loop.run(resources.access.refresh())
