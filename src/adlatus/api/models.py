"""/v1/models"""

from fastapi import Response

from adlatus.api.deps import Opened, json_response, keyed_router
from adlatus.backends.llm import Json, ModelError
from adlatus.errors import NotFound, Unavailable
from adlatus.wire.models import ListModelsResponse, Model

router = keyed_router()


@router.get("/models", response_model=ListModelsResponse)
async def list_models(opened: Opened) -> Response:
    """List what the model endpoint offers."""
    return json_response(ListModelsResponse(data=await _models(opened)).json_bytes())


@router.get("/models/{model:path}", response_model=Model)
async def retrieve_model(opened: Opened, model: str) -> Response:
    """Retrieve one of the endpoint's models. *Source* of the error: recorded."""
    for offered in await _models(opened):
        if offered.id == model:
            return json_response(offered.json_bytes())
    raise NotFound(f"The model '{model}' does not exist", param="model", code="model_not_found")


async def _models(opened: Opened) -> list[Model]:
    try:
        return [_model(offered) for offered in await opened.llm.models()]
    except ModelError as error:
        raise Unavailable(error.message) from error


def _model(offered: Json) -> Model:
    created, owner = offered.get("created"), offered.get("owned_by")
    return Model(
        id=offered["id"],
        created=created if isinstance(created, int) else 0,
        owned_by=owner if isinstance(owner, str) else "system",
    )
