"""/v1/chat/completions, /v1/completions, /v1/embeddings, /v1/moderations, /v1/responses: handed on as they are."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import structlog
from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from adlatus.api import embeddings
from adlatus.api.azure import asked_for
from adlatus.api.deps import TOKENS_LEFT, Opened, Project
from adlatus.api.leaving import until_client_leaves
from adlatus.api.routers import keyed_router, read_json
from adlatus.backends.refusals import without_keys
from adlatus.backends.relay import Relay, answer_headers, used_tokens
from adlatus.backends.routing import LOCAL, Route
from adlatus.backends.upstreams import TRANSPORT_ERRORS, told

log = structlog.get_logger(__name__)

PATHS = {
    "/chat/completions": "Create a chat completion.",
    "/completions": "Create a completion.",
    "/embeddings": "Create embeddings.",
    "/moderations": "Classify texts or images.",
    "/responses": "Create a response.",
}
USAGE_WITHIN = 16_384
"""So many bytes before the end of an answer begins what it tells of its usage."""

_BODY = {"content": {"application/json": {"schema": {"type": "object"}}}, "required": True}
_HANDED_ON = "Handed on to the endpoint that the model's name is routed to: only `model` changes in the request."

router = keyed_router()


async def hand_on(request: Request, opened: Opened, project: Project) -> Response:
    """Hand a request on to the endpoint of its model, or embed texts here."""
    path = request.url.path.removeprefix("/v1")
    body, asked = await read_json(request)
    if (azure := asked_for(request.scope)) and azure.deployment:
        asked["model"] = azure.deployment  # whatever the body says: it is the path that Azure went by
    route = opened.relay.route(path, asked)
    if route.endpoint is LOCAL and opened.local_model:
        answer = await embeddings.embed(opened.local_model, asked)
        await opened.rates.spend(project, used_tokens(bytes(answer.body)))
        return answer
    log.info("handed on", model=asked.get("model"), endpoint=route.endpoint.name, upstream_model=route.model)
    counts = opened.access.limits(project).tokens_per_minute is not None
    spend = partial(opened.rates.spend, project) if counts else None
    return Relayed(opened.relay, route, path, body, request.headers, spend)


for _path, _summary in PATHS.items():
    router.add_api_route(
        _path,
        hand_on,
        methods=["POST"],
        dependencies=TOKENS_LEFT,
        summary=_summary,
        description=_HANDED_ON,
        operation_id=f"hand_on{_path.replace('/', '_')}",
        openapi_extra={"requestBody": _BODY},
    )


class Relayed(Response):
    """The answer of an upstream, passed on byte by byte as it comes; a client that leaves takes the request with it.

    `spend` is told of the tokens that a whole answer says it took.
    """

    def __init__(
        self,
        relay: Relay,
        route: Route,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        spend: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__()
        self._endpoint = route.endpoint
        self._opening = relay.open(route, path, body, headers)
        self._spend = spend

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        await until_client_leaves(receive, self._pass_on(send))

    async def _pass_on(self, send: Send) -> None:
        async with self._opening as answer:
            await send({"type": "http.response.start", "status": answer.status_code, "headers": answer_headers(answer)})
            end = b""
            try:
                async for piece in answer.aiter_raw():
                    body = without_keys(piece, self._endpoint) if answer.is_error else piece
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                    if self._spend:
                        end = (end + piece)[-USAGE_WITHIN:]
            except TRANSPORT_ERRORS as error:
                # Without the end of its body the answer is seen to be broken off, as it is
                log.warning("the upstream broke its answer off", error=told(error))
                return
            if self._spend:  # before the end is known, so that the next request finds it counted
                await self._spend(used_tokens(end))
            await send({"type": "http.response.body", "body": b""})
