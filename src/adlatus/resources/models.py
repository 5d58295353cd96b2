"""Which endpoint answers for which model, and what files are indexed with."""

import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from pydantic import SecretStr

from adlatus.backends import models_file
from adlatus.backends.embeddings import Embedder, fetch, local
from adlatus.backends.embeddings.endpoint import EndpointEmbedder
from adlatus.backends.embeddings.local import LocalModel
from adlatus.backends.routing import LOCAL, Endpoint, Route, Routing
from adlatus.backends.upstreams import Clients
from adlatus.errors import StartupError
from adlatus.rehearsal import server as rehearsal
from adlatus.rehearsal.embeddings import MODEL as REHEARSAL_EMBEDDING
from adlatus.settings import Settings

log = structlog.get_logger(__name__)

_SET_BY = {
    "base_url": "ADLATUS_MODEL_BASE_URL",
    "api_key": "ADLATUS_MODEL_API_KEY",
    "model": "ADLATUS_MODEL",
    "image_urls": "ADLATUS_IMAGE_URLS",
}
"""The settings of the endpoint that is not in a routing table."""

_EMBEDDING_SET_BY = {
    "base_url": "ADLATUS_EMBEDDING_BASE_URL",
    "api_key": "ADLATUS_EMBEDDING_API_KEY",
    "model": "ADLATUS_EMBEDDING_MODEL",
}

EMBEDDINGS_ADVICE = "Run `adlatus models fetch`, or set ADLATUS_EMBEDDING_BASE_URL and ADLATUS_EMBEDDING_MODEL."
EMBEDDING_SETTINGS = "`adlatus models fetch`, or ADLATUS_EMBEDDING_BASE_URL and ADLATUS_EMBEDDING_MODEL"


@asynccontextmanager
async def open_routing(settings: Settings) -> AsyncIterator[tuple[Routing, str]]:
    """Which endpoint answers for which model, and what to say of it. Serves the rehearsal model if a name needs it.

    Raises `StartupError` with advice.
    """
    table = models_file.read(settings.models_file) if settings.models_file else None
    script, configured = settings.rehearsal_script, _configured(settings)
    async with AsyncExitStack() as stack:
        stand_in = None
        if table.wants_rehearsal if table else configured is None:
            base_url = await stack.enter_async_context(rehearsal.running(script=script))
            stand_in = Endpoint(
                models_file.REHEARSAL,
                base_url,
                timeout_s=settings.model_timeout_s,
                image_urls="forward",
                set_by=_SET_BY,
            )
        elif script:
            log.warning("no name leads to the rehearsal model, its script is ignored", script=str(script))
        routes = _routes(settings, table, stand_in) if table else []
        default = configured or (None if table else stand_in)
        unrouted = Route("*", default, settings.model or "*") if default else None
        embeddings = list(_embedding_routes(settings, configured, None if table else stand_in))
        routing = Routing(routes, unrouted, Route("*", default) if default else None, embeddings)
        yield routing, "; ".join(_routing_report(settings, routes, configured, stand_in))


def _routes(settings: Settings, table: models_file.ModelsFile, stand_in: Endpoint | None) -> list[Route]:
    timeout_s, image_urls = settings.model_timeout_s, settings.image_urls
    return table.routes(os.environ, timeout_s=timeout_s, image_urls=image_urls, rehearsal=stand_in)


def _configured(settings: Settings) -> Endpoint | None:
    """The endpoint of ADLATUS_MODEL_BASE_URL."""
    return _endpoint(settings, settings.model_base_url, settings.model_api_key, _SET_BY)


def _endpoint(
    settings: Settings, base_url: str | None, api_key: SecretStr | None, set_by: Mapping[str, str]
) -> Endpoint | None:
    if base_url is None:
        return None
    url = models_file.checked_url(base_url, set_by["base_url"])
    headers = models_file.key_headers(api_key.get_secret_value() if api_key else None)
    if models_file.unfit_header(headers):
        raise StartupError(f"{set_by['api_key']}: the key {models_file.NO_HEADER}.")
    return Endpoint(
        str(url.netloc, "ascii"),
        base_url,
        headers=headers,
        timeout_s=settings.model_timeout_s,
        image_urls=models_file.of_images(settings.image_urls, url),
        set_by=set_by,
    )


def _embedding_routes(settings: Settings, configured: Endpoint | None, stand_in: Endpoint | None) -> Iterator[Route]:
    """Where names of embedding models lead that are not in the table.

    The local model answers under its own name, and where the rehearsal model would stand in, to every name but that
    of the rehearsal's embeddings. A script is for tests, which want what they always get.
    """
    endpoint = _endpoint(settings, settings.embedding_base_url, settings.embedding_api_key, _EMBEDDING_SET_BY)
    if endpoint:
        yield Route("*", endpoint, settings.embedding_model or "*", chat=False)
    elif configured is None and local.installed() and fetch.find(settings.data_dir):
        yield Route(local.NAME, LOCAL, local.NAME, chat=False)
        if stand_in and settings.rehearsal_script is None:
            yield Route(REHEARSAL_EMBEDDING, stand_in, REHEARSAL_EMBEDDING)
            yield Route("*", LOCAL, local.NAME, chat=False)


def open_local_model(stack: AsyncExitStack, settings: Settings) -> LocalModel | None:
    """The local model if it was fetched. It is loaded when it is first used."""
    folder = fetch.find(settings.data_dir) if local.installed() else None
    if folder is None:
        return None
    model = LocalModel(folder)
    stack.callback(model.close)
    return model


def pick_embedder(
    settings: Settings, routing: Routing, clients: Clients, local_model: LocalModel | None
) -> Embedder | None:
    """What files are indexed with: the model of ADLATUS_EMBEDDING_MODEL, wherever its name leads, or the local one.

    Raises `StartupError` with advice.
    """
    if settings.embedding_model is None:
        if settings.embedding_base_url:
            raise StartupError("ADLATUS_EMBEDDING_BASE_URL needs ADLATUS_EMBEDDING_MODEL: which model to ask for.")
        return local_model
    route = routing.resolve_embedding(settings.embedding_model)
    if route is None:
        raise StartupError(
            f"ADLATUS_EMBEDDING_MODEL: the name '{settings.embedding_model}' leads nowhere. Set "
            "ADLATUS_EMBEDDING_BASE_URL, or route the name in ADLATUS_MODELS_FILE."
        )
    if route.endpoint is LOCAL:
        return local_model
    return EndpointEmbedder(
        clients, route, dimensions=settings.embedding_dimensions, max_tokens=settings.embedding_max_tokens
    )


def _routing_report(
    settings: Settings, routes: list[Route], default: Endpoint | None, stand_in: Endpoint | None
) -> Iterator[str]:
    if routes:
        yield f"{len(routes)} name(s) and patterns of {settings.models_file}"
    if stand_in and settings.rehearsal_script:
        asked = f"{stand_in.base_url.removesuffix('/v1')}/requests"
        yield f"rehearsal: plays {settings.rehearsal_script}; what it is asked: {asked}"
    elif stand_in:
        yield "rehearsal: a scripted stand-in, not a language model"
    if default:
        others = "other" if routes else "every"
        which = f"{others} name goes to {settings.model}" if settings.model else f"{others} name passes through"
        yield f"{default.shown}, {which}"


def embeddings_report(embedder: Embedder | None) -> str:
    match embedder:
        case None:
            return "none: degraded, files would be found by their words only"
        case LocalModel():
            return f"{embedder.name}, on this machine"
        case _:
            return f"{embedder.name}, by its endpoint"
