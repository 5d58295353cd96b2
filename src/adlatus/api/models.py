"""/v1/models"""

import asyncio
from collections.abc import Mapping

import structlog
from fastapi import Response
from starlette.convertors import StringConvertor, register_url_convertor

from adlatus.api.deps import Opened
from adlatus.api.routers import json_response, keyed_router
from adlatus.backends.llm import Llm
from adlatus.backends.refusals import ModelError
from adlatus.backends.routing import LOCAL, LONGEST_NAME, Endpoint, Route
from adlatus.errors import Forbidden, NotFound, Unavailable
from adlatus.wire.common import Json
from adlatus.wire.models import ListModelsResponse, Model

log = structlog.get_logger(__name__)


class _AnyName(StringConvertor):
    """Whatever stands in a path: Starlette's own `path` leaves out line breaks, whose 404 would be of another kind."""

    regex = "(?s:.*)"


register_url_convertor("any", _AnyName())
router = keyed_router()

Offered = Mapping[Endpoint, Mapping[str, Json]]
"""What each endpoint lists, by the names of its models."""


@router.get("/models", response_model=ListModelsResponse)
async def list_models(opened: Opened) -> Response:
    """List the names of the routing table, and what its endpoints offer under names that lead there."""
    routing = opened.llm.routing
    offered = await _offered(opened.llm)
    models = [_shown(route.pattern, route, offered.get(route.endpoint, {})) for route in routing.aliases]
    listed = {model.id for model in models}
    for endpoint, own in offered.items():
        routes = {name: routing.passing(name, endpoint) for name in own if name not in listed}
        models += [_shown(name, route, own) for name, route in routes.items() if route]
    return json_response(ListModelsResponse(data=models).json_bytes())


@router.get("/models/{model:any}", response_model=Model)
async def retrieve_model(opened: Opened, model: str) -> Response:
    """Retrieve one of the models, or the one that stands in for a name. *Source* of the error: recorded."""
    return json_response((await _model(opened.llm, model)).json_bytes())


@router.delete("/models/{model:any}", include_in_schema=False)
async def delete_model(opened: Opened, model: str) -> Response:
    """Refuse: the original deletes the fine-tuned models that it has made. *Source* of the 404: recorded."""
    await _model(opened.llm, model)
    raise Forbidden(f"The model '{model}' is not deleted over the API: take it off the endpoint that offers it.")


async def _model(llm: Llm, name: str) -> Model:
    """A model by the name that leads to it. Only its own endpoint is asked.

    Raises `NotFound`, or `Unavailable` where that endpoint has to tell whether it exists and does not answer.
    """
    route = llm.routing.resolve(name)
    local = llm.routing.resolve_embedding(name)
    if local and local.endpoint is LOCAL and local.model == name:
        route = local
    if route:
        offered = await _listed(llm, route.endpoint)
        told = {} if isinstance(offered, ModelError) else offered
        if route in llm.routing.aliases or not route.endpoint.lists_models or route.model in told:
            return _shown(name, route, told)
        if isinstance(offered, ModelError):
            raise Unavailable(offered.message)
    raise NotFound(f"The model '{name[:LONGEST_NAME]}' does not exist", param="model", code="model_not_found")


async def _offered(llm: Llm) -> Offered:
    """What the endpoints list. One that is down hides its own names, not those of the table.

    Raises `Unavailable` where that leaves nothing.
    """
    endpoints = llm.routing.endpoints
    answers = await asyncio.gather(*(_listed(llm, endpoint) for endpoint in endpoints))
    offered = dict(zip(endpoints, answers, strict=True))
    if not llm.routing.aliases and all(isinstance(answer, ModelError) for answer in answers):
        raise Unavailable(str(answers[0]))
    return {endpoint: answer for endpoint, answer in offered.items() if not isinstance(answer, ModelError)}


async def _listed(llm: Llm, endpoint: Endpoint) -> dict[str, Json] | ModelError:
    try:
        return {model["id"]: model for model in await llm.models(endpoint)}
    except ModelError as error:
        log.warning("endpoint does not list its models", endpoint=endpoint.name, error=str(error))
        return error


def _shown(name: str, route: Route, offered: Mapping[str, Json]) -> Model:
    """A model under the name that was asked for, with what its endpoint tells of it."""
    told = offered.get(route.model, {})
    created, owned_by = told.get("created"), told.get("owned_by")
    return Model(
        id=name,
        created=created if type(created) is int else 0,  # not isinstance: True is no time
        owned_by=owned_by if isinstance(owned_by, str) else route.endpoint.name,
    )
