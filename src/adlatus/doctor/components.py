"""The checks of what is outside of the process: each component is opened as `serve` would open it, and asked."""

import asyncio
from contextlib import AsyncExitStack

import asyncpg

from adlatus.backends.blobs import open_blobs, why
from adlatus.backends.llm import Llm
from adlatus.backends.postgres import attach
from adlatus.backends.refusals import ModelError
from adlatus.backends.rerank import open_reranker
from adlatus.backends.routing import Endpoint
from adlatus.backends.sandbox.engine import SandboxUnavailableError
from adlatus.backends.sandbox.picking import pick_engine
from adlatus.backends.upstreams import open_clients
from adlatus.doctor.finding import Finding
from adlatus.errors import StartupError, Unavailable
from adlatus.rehearsal.script import load
from adlatus.resources.index import index_folder, open_server
from adlatus.resources.models import EMBEDDINGS_ADVICE, open_local_model, open_routing, pick_embedder
from adlatus.settings import Settings
from adlatus.store import migrate
from adlatus.telemetry import Metrics

EMBEDDING_S = 20
INDEX_S = 5
SANDBOX_S = 20


async def database(settings: Settings) -> Finding:
    try:
        if settings.database_url is None:
            embedded = await attach(settings.data_dir)
            if embedded is None:
                return Finding(
                    "database", None, f"embedded, not running ({settings.data_dir}); `adlatus serve` starts it"
                )
            dsn = embedded.dsn
        else:
            dsn = settings.database_url.get_secret_value()
        revision = await migrate.current(dsn)
    except StartupError as error:
        return Finding("database", False, str(error))
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError, ValueError) as error:
        return Finding("database", False, f"cannot connect: {error}", "Check ADLATUS_DATABASE_URL and the server.")
    if revision is not None and not migrate.knows(revision):
        newer = "Use the Adlatus that has migrated it: this one is older."
        return Finding("database", False, f"at revision {revision}, which this version does not know", newer)
    if revision != migrate.head():
        return Finding("database", False, f"at revision {revision or 'none'}", "Run `adlatus migrate`.")
    return Finding("database", True, f"at revision {revision}")


async def storage(settings: Settings) -> Finding:
    """Whether files can be written and read."""
    if settings.storage_url is None and not settings.data_dir.exists():
        return Finding("storage", None, f"a folder of {settings.data_dir}; `adlatus serve` makes it")
    try:
        blobs = open_blobs(settings.storage_url, settings.data_dir)
        async with asyncio.timeout(30):
            await blobs.check()
    except StartupError as error:
        return Finding("storage", False, str(error))
    except (Unavailable, TimeoutError) as error:
        advice = "Check ADLATUS_STORAGE_URL, and the address and keys in the environment (docs/files.md)."
        return Finding("storage", False, why(error) if isinstance(error, Unavailable) else "does not answer", advice)
    return Finding("storage", True, blobs.shown)


async def models(settings: Settings) -> list[Finding]:
    """One finding for each endpoint: whether it answers, and offers the models that names lead to."""
    try:
        if settings.model_base_url is None and settings.models_file is None:
            return [_rehearsal(settings)]
        async with open_routing(settings) as (routing, _), open_clients(routing.endpoints) as clients:
            return [await _endpoint(Llm(clients, routing), endpoint) for endpoint in routing.endpoints]
    except StartupError as error:
        return [Finding("model", False, str(error))]


async def index(settings: Settings) -> Finding:
    """Whether the vector database answers. The embedded one is its server's alone, which tells of it by /readyz."""
    if settings.qdrant_url is None:
        return Finding("index", None, f"embedded Qdrant, in {index_folder(settings)}")
    async with open_server(settings.qdrant_url, settings.qdrant_api_key) as index:
        try:
            async with asyncio.timeout(INDEX_S):
                await index.ping()
        except Unavailable as error:
            return Finding("index", False, error.message, "Check ADLATUS_QDRANT_URL and ADLATUS_QDRANT_API_KEY.")
        except TimeoutError:
            return Finding("index", False, f"no answer within {INDEX_S} seconds", "Check ADLATUS_QDRANT_URL.")
    return Finding("index", True, f"Qdrant at {index.shown}")


async def embeddings(settings: Settings) -> Finding:
    """Whether a text becomes a vector, by the model that files would be indexed with."""
    async with AsyncExitStack() as stack:
        try:
            routing, _ = await stack.enter_async_context(open_routing(settings))
            clients = await stack.enter_async_context(open_clients(routing.addressed))
            embedder = pick_embedder(settings, routing, clients, open_local_model(stack, settings))
            if embedder is None:
                return Finding("embeddings", None, "none: degraded, files are found by words only", EMBEDDINGS_ADVICE)
            async with asyncio.timeout(EMBEDDING_S):
                vector = await embedder.embed_query("Is anybody there?")
        except StartupError as error:
            return Finding("embeddings", False, str(error))  # where it is of the models, it is said twice
        except ModelError as error:
            return Finding("embeddings", False, error.message)
        except TimeoutError:
            return Finding("embeddings", False, f"no answer within {EMBEDDING_S} seconds")
    return Finding("embeddings", True, f"{embedder.name}, {len(vector)} dimensions")


async def reranker(settings: Settings) -> Finding:
    """Whether a passage is judged."""
    if settings.rerank_url is None:
        return Finding("reranker", None, "none")
    try:
        async with open_reranker(settings, Metrics().reranks) as opened:
            assert opened is not None
            await opened.scores("Is anybody there?", ["Yes."])
    except StartupError as error:
        return Finding("reranker", False, str(error))
    except ModelError as error:
        advice = "Check ADLATUS_RERANK_URL, ADLATUS_RERANK_API_KEY and ADLATUS_RERANK_MODEL (docs/retrieval.md)."
        return Finding("reranker", False, error.message, advice)
    return Finding("reranker", True, "it answers")


async def code(settings: Settings) -> Finding:
    """Which sandboxes code would be executed in, and what they do not protect from."""
    if settings.sandbox == "off":
        return Finding("code", None, "not executed: ADLATUS_SANDBOX=off")
    try:
        async with asyncio.timeout(SANDBOX_S):
            engine = await pick_engine(settings, "doctor")
            await engine.close()
    except (SandboxUnavailableError, StartupError) as error:
        is_wanted = False if settings.sandbox in ("docker", "bubblewrap") else None
        return Finding("code", is_wanted, "not executed: the code interpreter is refused", str(error))
    except TimeoutError:
        return Finding("code", False, f"no engine for sandboxes within {SANDBOX_S} seconds", "Check DOCKER_HOST.")
    return Finding("code", True, f"sandboxes by {engine.name}", " ".join(engine.lacks))


def _rehearsal(settings: Settings) -> Finding:
    advice = "Set ADLATUS_MODEL_BASE_URL, for example http://localhost:11434/v1, and ADLATUS_MODEL."
    if settings.rehearsal_script is None:
        return Finding("model", None, "rehearsal: a scripted stand-in, not a language model", advice)
    script = load(settings.rehearsal_script)
    return Finding("model", True, f"rehearsal: plays {script.name}, {len(script.exchanges)} exchange(s)")


async def _endpoint(llm: Llm, endpoint: Endpoint) -> Finding:
    name, shown = f"model ({endpoint.name})", endpoint.shown
    if not endpoint.lists_models:
        return Finding(name, None, f"{shown} has no list of models to check")
    try:
        offered = [model["id"] for model in await llm.models(endpoint)]
    except ModelError as error:
        return Finding(name, False, error.message)
    wanted = [route.model for route in llm.routing.fixed if route.endpoint == endpoint]
    if absent := [model for model in wanted if model not in offered]:
        return Finding(name, False, f"no model '{absent[0]}' there", f"It offers: {', '.join(offered[:20])}")
    return Finding(name, True, f"{shown} offers {len(offered)} model(s)")
