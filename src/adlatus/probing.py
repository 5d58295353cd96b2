"""Whether a process can do its work: what /readyz says, of `serve` and of `worker`."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from sqlalchemy import literal, select

from adlatus.backends.embeddings.endpoint import EndpointEmbedder
from adlatus.backends.refusals import ModelError
from adlatus.backends.routing import Endpoint
from adlatus.errors import ApiError, Unavailable
from adlatus.resources import Resources

ANSWER_S = 2.0
"""How long a component may take to answer."""

MODELS_S = 30.0
"""How often model endpoints are asked at most: it may cost them something, and nothing depends on it."""

OK = "ok"
_SILENT = "does not answer"
_ONE = select(literal(1))


@dataclass(frozen=True)
class Readiness:
    """Whether requests can be answered and work done, and the state of each component: `ok`, or what is wrong.

    `models` are the endpoints, by their names, and what embeds; a model that is down makes nothing unready.
    """

    ready: bool
    components: dict[str, str]
    models: dict[str, str] = field(default_factory=dict)


class Probes:
    """The components of a process. `alive` says whether its executors get their heartbeats through, if it has any."""

    def __init__(self, resources: Resources, alive: Callable[[], bool] | None) -> None:
        self._resources = resources
        self._alive = alive
        self._asking = asyncio.Lock()
        self._models: dict[str, str] = {}
        self._models_asked_at = -math.inf

    async def needed(self) -> Readiness:
        """What most requests are in want of. For load balancers, which ask all the time."""
        opened = self._resources
        database, storage = await asyncio.gather(state_of(opened.database.fetch(_ONE)), state_of(opened.blobs.glance()))
        components = {"database": database, "storage": storage}
        if self._alive:
            components["executor"] = OK if self._alive() else "no heartbeat for longer than a lease"
        return Readiness(all(state == OK for state in components.values()), components)

    async def all(self) -> Readiness:
        """The same with the state of what other requests need: those make nothing unready."""
        opened = self._resources
        needed, index, models = await asyncio.gather(self.needed(), state_of(opened.index.ping()), self._endpoints())
        components = {**needed.components, "index": index}
        if opened.code and (opened.code.sandboxes or opened.settings.sandbox in ("docker", "bubblewrap")):
            components["code"] = opened.code.problem or OK
        return Readiness(needed.ready, components, models)

    async def _endpoints(self) -> dict[str, str]:
        """The state of each model endpoint, as it was half a minute ago at most."""
        async with self._asking:
            if time.monotonic() - self._models_asked_at >= MODELS_S:
                llm = self._resources.llm
                asked = [each for each in llm.routing.addressed if each.lists_models]
                states = await asyncio.gather(*map(self._endpoint, asked))
                self._models = {each.name: state for each, state in zip(asked, states, strict=True)}
                self._models["embeddings"] = self._embeddings()
                self._models_asked_at = time.monotonic()
        return self._models

    def _embeddings(self) -> str:
        match self._resources.embedder:
            case None:
                return "none: files are found by their words only"
            case EndpointEmbedder() as embedder:
                return self._models.get(embedder.endpoint.name, OK)
            case _:
                return OK

    async def _endpoint(self, endpoint: Endpoint) -> str:
        return await state_of(self._resources.llm.reach(endpoint))


async def state_of(asked: Awaitable[object]) -> str:
    """What there is to say of a component that has been asked something."""
    try:
        async with asyncio.timeout(ANSWER_S):
            await asked
    except (Unavailable, TimeoutError):
        return _SILENT
    except (ApiError, ModelError) as error:
        return error.message
    return OK
