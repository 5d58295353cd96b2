"""Many clients at once, one of which puts files into a store, for as long as there is trouble; then they end."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from tests.faults.chaos.clients import Client, connections
from tests.faults.chaos.deployment import Deployment
from tests.faults.chaos.questions import TOOLS, conversation
from tests.retrieval.ingesting import SMALL_CHUNKS, text

Json = dict[str, Any]
TOPICS = 3
CHUNKS = 4


@dataclass
class Load:
    """What all clients have done. `files` are those that were acknowledged to be in the store, by their topics."""

    store_id: str
    clients: list[Client] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    @property
    def answered(self) -> int:
        """How many questions have had their answers."""
        return sum(client.answered for client in self.clients)

    @property
    def topics(self) -> list[str]:
        """What searches are about: the files that were there before all trouble."""
        return [f"topic{number}" for number in range(TOPICS)]


async def put_under_load(
    deployment: Deployment, seed: int, talkers: int, trouble: Callable[[Load], Awaitable[None]]
) -> Load:
    """Keep so many clients asking until the trouble is over, and until each has had its answers."""
    over = asyncio.Event()
    async with connections() as http, asyncio.TaskGroup() as group:

        def client(name: str, assistants: dict[str, str]) -> Client:
            chance = random.Random(f"{seed}-{name}")
            made = Client(http, lambda: deployment.front(chance), chance, assistants)
            load.clients.append(made)
            return made

        load = Load("")
        first = client("first", {})
        load.store_id = (await first.ask("POST", "/vector_stores", json={}))["id"]
        for topic in load.topics:
            await _put_in(first, load, topic)
        await _until_settled(first, load.store_id)
        assistants = {kind: await _assistant(first, kind, load.store_id) for kind in TOOLS}
        tasks = [group.create_task(_talk(client(str(n), assistants), n, load, over)) for n in range(talkers)]
        tasks.append(group.create_task(_archive(client("archivist", {}), load, over)))
        await trouble(load)
        over.set()
    return load


async def _assistant(client: Client, kind: str, store_id: str) -> str:
    sent: Json = {"model": "gpt-4o", "name": kind, "tools": TOOLS[kind]}
    if kind == "search":
        sent["tool_resources"] = {"file_search": {"vector_store_ids": [store_id]}}
    made: str = (await client.ask("POST", "/assistants", json=sent))["id"]
    return made


async def _talk(client: Client, number: int, load: Load, over: asyncio.Event) -> None:
    talks = 0
    while not over.is_set():
        talks += 1
        await client.converse(conversation(client.chance, f"{number}-{talks}", load.topics))


async def _archive(client: Client, load: Load, over: asyncio.Event) -> None:
    number = 0
    while not over.is_set():
        number += 1
        await _put_in(client, load, f"archived{number}")
        await asyncio.sleep(client.chance.random())


async def _put_in(client: Client, load: Load, topic: str) -> None:
    """Upload a file about a topic and put it into the store, however often that takes."""
    content = {"file": (f"{topic}.txt", text(topic, CHUNKS).encode())}
    file_id = (await client.ask("POST", "/files", data={"purpose": "assistants"}, files=content))["id"]
    sent = {"file_id": file_id, "chunking_strategy": SMALL_CHUNKS}
    await client.ask("POST", f"/vector_stores/{load.store_id}/files", json=sent)
    load.files[topic] = file_id


async def _until_settled(client: Client, store_id: str) -> None:
    while (await client.ask("GET", f"/vector_stores/{store_id}"))["file_counts"]["in_progress"]:
        await asyncio.sleep(0.1)
