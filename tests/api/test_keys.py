"""Keys of the database: made, used, revoked while servers run; and the headers that name project and organization."""

import asyncio
from collections.abc import Callable, Iterator

import httpx
import pytest
from openai import AuthenticationError, OpenAI
from sqlalchemy import ClauseElement, text

from adlatus.settings import Settings
from adlatus.store import keys, projects
from adlatus.store.db import Database, Row
from adlatus.tenants.access import LOOK_S, Access
from tests.api.tenancy import make_key
from tests.conftest import Loop, Server, serving
from tests.runs.transcripts import client_of


@pytest.fixture(scope="module")
def keyed(loop: Loop, new_database: Callable[[], str]) -> Iterator[Server]:
    """A server with a configured key, whose database has none at the start."""
    with serving(loop, Settings(database_url=new_database(), api_keys="sk-configured:one"), executor=False) as server:
        yield server


def status(server: Server, key: str | None, **headers: str) -> int:
    """What the server answers to who comes with a key."""
    with client_of(server, key) as client:
        return client.get("/threads", headers=headers).status_code


def look(server: Server) -> None:
    """Let the server learn now what it would learn in a moment."""
    server.loop.run(server.resources.access.refresh())


def used_at(server: Server, key_id: str) -> int | None:
    [row] = [row for row in server.loop.run(keys.listed(server.resources.database, None)) if row["id"] == key_id]
    found: int | None = row["last_used_at"]
    return found


def test_a_key_that_is_made_while_a_server_runs_opens_its_project_at_once(keyed: Server) -> None:
    secret, _ = make_key(keyed, "blue")
    with client_of(keyed, secret) as client, client_of(keyed, "sk-configured") as other:
        made = client.post("/threads").json()["id"]
        assert client.get(f"/threads/{made}").headers["openai-project"] == "blue"
        assert other.get(f"/threads/{made}").status_code == 404


def test_a_revoked_key_opens_nothing_and_others_go_on(keyed: Server) -> None:
    (kept, _), (revoked, row) = make_key(keyed, "blue"), make_key(keyed, "blue")
    assert status(keyed, revoked) == status(keyed, kept) == 200
    assert keyed.loop.run(keys.revoke(keyed.resources.database, row["id"]))
    look(keyed)
    assert status(keyed, revoked) == 401
    assert status(keyed, kept) == status(keyed, "sk-configured") == 200


def test_what_changes_is_known_within_five_seconds() -> None:
    assert LOOK_S <= 5


def test_nothing_but_its_digest_and_a_few_characters_of_a_key_are_stored(keyed: Server) -> None:
    secret, row = make_key(keyed, name="laptop")
    assert row["shown"] == f"sk-…{secret[-4:]}"
    stored = text("SELECT (api_keys.*)::text AS shown, sha256 FROM api_keys WHERE name = 'laptop'")
    found = keyed.loop.run(keyed.resources.database.fetch_row(stored))
    assert found
    assert secret[4:-4] not in found["shown"]
    assert bytes(found["sha256"]) == keys.digest(secret)


class Watched(Database):
    """The database, whose statements are counted, and whose answers wait until they are let through."""

    def __init__(self, database: Database) -> None:
        super().__init__(database.pool, database.dsn)
        self.asked = 0
        self.lets_through = asyncio.Event()
        self.lets_through.set()

    async def fetch(self, statement: ClauseElement, **params: object) -> list[Row]:
        found = await super().fetch(statement, **params)
        self.asked += 1
        await self.lets_through.wait()
        return found

    async def fetch_row(self, statement: ClauseElement, **params: object) -> Row | None:
        found = await super().fetch_row(statement, **params)
        self.asked += 1
        await self.lets_through.wait()
        return found


def test_known_keys_ask_the_database_nothing_and_wrong_ones_together_one_thing(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        watched = Watched(database)
        await keys.add(database, "other", "sk-known", None)
        access = Access(watched, Settings(api_keys="sk-configured"))
        await access.refresh()
        watched.asked = 0
        known = [await access.project_of(key) for key in ("sk-known", "sk-configured") for _ in range(100)]
        assert known == ["other"] * 100 + ["default"] * 100
        assert watched.asked == 0
        wrong = await asyncio.gather(*(access.project_of(f"sk-{number}") for number in range(500)))
        assert wrong == [None] * 500
        assert watched.asked == 1
        await access.close()

    loop.run(scenario())


def test_a_key_that_is_made_while_others_are_looked_for_is_found(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        watched = Watched(database)
        access = Access(watched, Settings(api_keys="sk-configured"))
        await access.refresh()
        watched.lets_through.clear()
        watched.asked = 0
        wrong = asyncio.create_task(access.project_of("sk-wrong"))
        while not watched.asked:
            await asyncio.sleep(0)
        await keys.add(database, "other", "sk-new", None)
        new = asyncio.create_task(access.project_of("sk-new"))
        await asyncio.sleep(0)
        watched.lets_through.set()
        assert (await wrong, await new) == (None, "other")
        await access.close()

    loop.run(scenario())


def test_the_last_use_of_keys_is_noted_once_a_minute(keyed: Server) -> None:
    made = [make_key(keyed) for _ in range(3)]
    for secret, _ in made[:2]:
        assert status(keyed, secret) == 200
    look(keyed)
    assert [used_at(keyed, row["id"]) is not None for _, row in made] == [True, True, False]
    keyed.loop.run(keyed.resources.database.fetch(text("UPDATE api_keys SET last_used_at = NULL")))
    for secret, _ in made:
        assert status(keyed, secret) == 200
    look(keyed)
    assert [used_at(keyed, row["id"]) is not None for _, row in made] == [False, False, True]


def test_uses_of_the_last_minute_are_noted_when_a_server_stops(loop: Loop, new_database: Callable[[], str]) -> None:
    settings = Settings(database_url=new_database(), api_keys="sk-configured")
    with serving(loop, settings, executor=False) as server:
        secret, row = make_key(server)
        assert status(server, secret) == 200
        look(server)
        server.loop.run(server.resources.database.fetch(text("UPDATE api_keys SET last_used_at = NULL")))
        assert status(server, secret) == 200
    with serving(loop, settings, executor=False) as server:
        assert used_at(server, row["id"]) is not None


# --- Servers without keys


def test_a_server_without_keys_wants_them_once_there_is_one_and_even_when_that_is_revoked(
    loop: Loop, new_database: Callable[[], str]
) -> None:
    settings = Settings(database_url=new_database())
    with serving(loop, settings, executor=False) as server:
        foreign = {"host": "assistants.example.com"}
        assert (status(server, None), status(server, "sk-any", **foreign)) == (200, 403)
        secret, row = make_key(server)
        look(server)
        assert (status(server, None), status(server, "sk-any"), status(server, secret, **foreign)) == (401, 401, 200)
        assert httpx.get(f"{server.url}/metrics").status_code == 401
        assert "components" not in httpx.get(f"{server.url}/readyz").json()
        shown = httpx.get(f"{server.url}/readyz", headers={"Authorization": f"Bearer {secret}"}).json()
        assert shown["uses"]["keys"] == "0 configured and 1 made, for 1 project(s)"
        server.loop.run(keys.revoke(server.resources.database, row["id"]))
        look(server)
        assert (status(server, None), status(server, secret)) == (401, 401)
    with serving(loop, settings, executor=False) as again:
        assert status(again, None) == 200


def test_a_server_for_other_machines_is_never_without_keys(loop: Loop, new_database: Callable[[], str]) -> None:
    with serving(loop, Settings(database_url=new_database(), host="0.0.0.0"), executor=False) as server:
        assert not server.resources.access.has_keys
        assert (status(server, None), status(server, "sk-any", host="localhost")) == (401, 401)


# --- OpenAI-Project, OpenAI-Organization


@pytest.mark.parametrize("organization", [None, "org-any", ""])
@pytest.mark.parametrize("project", [None, "one", ""])
def test_the_headers_that_name_organization_and_the_keys_own_project_are_accepted(
    keyed: Server, organization: str | None, project: str | None
) -> None:
    named = {"openai-organization": organization, "openai-project": project}
    headers = {name: value for name, value in named.items() if value is not None}
    assert status(keyed, "sk-configured", **headers) == 200


def test_a_key_may_come_as_azures_clients_send_it(keyed: Server) -> None:
    secret, row = make_key(keyed, "blue")
    with client_of(keyed) as client:
        found = client.get("/threads", headers={"api-key": secret})
        assert (found.status_code, found.headers["openai-project"]) == (200, "blue")
        assert client.get("/threads", headers={"api-key": "sk-wrong"}).status_code == 401
        assert client.get("/threads", headers={"api-key": secret, "authorization": "Bearer x"}).status_code == 401
    look(keyed)
    assert used_at(keyed, row["id"]) is not None


@pytest.mark.parametrize("project", ["two", "proj_abc", "ONE"])
def test_a_key_does_not_open_another_project_that_is_named(keyed: Server, project: str) -> None:
    keyed.loop.run(projects.ensure(keyed.resources.database, ["two"]))
    client = OpenAI(base_url=keyed.base_url, api_key="sk-configured", project=project, organization="org-any")
    with client, pytest.raises(AuthenticationError) as refused:
        client.beta.threads.create()
    assert refused.value.body == {
        "message": "OpenAI-Project header should match project for API key",
        "type": "invalid_request_error",
        "param": None,
        "code": "mismatched_project",
    }


def test_without_keys_any_project_may_be_named(loop: Loop, new_database: Callable[[], str]) -> None:
    with (
        serving(loop, Settings(database_url=new_database()), executor=False) as server,
        OpenAI(base_url=server.base_url, api_key="any", project="proj_abc", organization="org-any") as client,
    ):
        made = client.beta.threads.with_raw_response.create()
        assert made.headers["openai-project"] == "default"
