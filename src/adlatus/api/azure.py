"""The dialect of Azure's clients: where its paths lead, and what its gateway said in words of its own.

Paths below `/openai` are those below `/v1`. Who asks there is told an `apim-request-id`, and need
not send the beta header.
"""

import re
from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import get_contextvars

from adlatus.api.callers import AZURE
from adlatus.api.middleware import respond
from adlatus.errors import ApiError, GatewayError, NotFound, Unauthorized

_ROOT = "/openai"
_DEPLOYMENT = re.compile(
    r"/openai/deployments/(?P<name>.+?)(?P<path>/(?:chat/completions|completions|embeddings))", re.S
)
_WITHOUT_VERSION = "/openai/v1"

_NO_KEY = (
    "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an "
    "active subscription and use a correct regional API endpoint for your resource. (HINT: You can "
    "obtain a key from your operator.)"
)
_NO_VERSION = (
    "Resource not found (HINT: paths below /openai want the query parameter api-version, any will do, such as "
    "?api-version=2024-05-01-preview; only those below /openai/v1 are without.)"
)
_NO_DEPLOYMENT = (
    "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, "
    "please wait a moment and try again. (HINT: Deployments are names of models here, see docs/models.md.)"
)


@dataclass(frozen=True)
class Asked:
    """A path as the client wrote it, and the deployment that it names, if any."""

    path: str
    deployment: str | None = None


class AzurePaths:
    """Hands requests for `/openai/…` on as those for `/v1/…` that they are.

    The route gets a scope of its own, so that logs and the suite's witness know what was asked for; of that only the
    route comes back, which metrics are counted by.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope.get("path", "")
        if scope["type"] != "http" or not f"{path}/".startswith(f"{_ROOT}/"):
            await self._app(scope, receive, send)
            return
        if not is_without_version(path) and not parse_qs(scope["query_string"].decode("latin-1")).get("api-version"):
            await respond(GatewayError(NotFound.status, "404", _NO_VERSION), send)
            return
        sent = Headers(scope=scope)

        async def send_with_ids(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["apim-request-id"] = get_contextvars().get("request_id", "")
                if client_id := sent.get("x-ms-client-request-id"):
                    headers["x-ms-client-request-id"] = client_id
            await send(message)

        inner, asked = _translated(path)
        translated = {**scope, "path": inner, AZURE: asked}
        try:
            await self._app(translated, receive, send_with_ids)
        finally:
            if "route" in translated:
                scope["route"] = translated["route"]


def _translated(path: str) -> tuple[str, Asked]:
    if named := _DEPLOYMENT.fullmatch(path):
        return f"/v1{named['path']}", Asked(path, named["name"])
    root = _WITHOUT_VERSION if is_without_version(path) else _ROOT
    return f"/v1{path.removeprefix(root)}", Asked(path)


def is_without_version(path: str) -> bool:
    """Whether a path is of Azure's newer kind, which wants no `api-version`."""
    return f"{path}/".startswith(f"{_WITHOUT_VERSION}/")


def asked_for(scope: Scope) -> Asked | None:
    """What an Azure client has asked for; None for all others."""
    asked: Asked | None = scope.get(AZURE)
    return asked


def in_its_words(scope: Scope, error: ApiError) -> ApiError:
    """An error as an Azure client knows it: the gateway's own are told its way, all others were OpenAI's.

    *Source* of the words and codes: field reports.
    """
    match asked_for(scope), error:
        case None, _:
            return error
        case _, Unauthorized():
            return GatewayError(error.status, "401", _NO_KEY)
        case Asked(deployment=str()), NotFound(code="model_not_found"):
            return GatewayError(error.status, "DeploymentNotFound", _NO_DEPLOYMENT)
        case _:
            return error
