"""Requests of the other OpenAI APIs, handed on to the endpoint that the routing table names.

Only `model` changes in a request, and nothing in an answer. Knows neither what the requests mean nor HTTP servers.
"""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx
import orjson

from adlatus.backends.routing import Route, Routing
from adlatus.backends.upstreams import TRANSPORT_ERRORS, Clients, key_refused, the, unreachable
from adlatus.errors import BadGateway, InvalidRequest, Unavailable, unknown_model

SENT_ON = ("accept", "idempotency-key", "openai-beta", "traceparent", "tracestate", "x-client-request-id")
"""What of a client's headers goes on: neither its key nor what belongs to its connection."""

KEPT_BACK = frozenset(
    (
        *("connection", "keep-alive", "proxy-authenticate", "proxy-connection", "te", "trailer", "transfer-encoding"),
        *("upgrade", "alt-svc", "date", "server", "set-cookie", "strict-transport-security"),
        *("clear-site-data", "refresh", "www-authenticate"),
    )
)
"""What of an answer's headers belongs to the upstream's connection or site. The others go to the client, except
`access-control-…`: which web pages may read our answers is told by `ADLATUS_CORS_ORIGINS` alone."""

DEFAULT_MODELS = {"/moderations": "omni-moderation-latest"}
"""What the original took where no model is named."""

_GENERATES = ("/chat/completions", "/completions", "/responses")
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\]]', re.DOTALL)
_TOTAL = re.compile(rb'"total_tokens"\s*:\s*([0-9]{1,12})')
_COLON = re.compile(rb"\s*:\s*")


class Relay:
    """Hands requests on. Raises `ApiError`s only."""

    def __init__(self, clients: Clients, routing: Routing) -> None:
        self._clients = clients
        self._routing = routing

    def route(self, path: str, asked: Mapping[str, object]) -> Route:
        """The route for the parsed body of a request to a path such as `/embeddings`.

        Raises `NotFound` where the model's name leads nowhere, `InvalidRequest` where none is given.
        """
        model = asked.get("model", DEFAULT_MODELS.get(path))
        if not isinstance(model, str) or not model:
            raise InvalidRequest("you must provide a model parameter")
        routing = self._routing
        embeds = path == "/embeddings"
        route = routing.resolve_embedding(model) if embeds else routing.resolve(model, generates=path in _GENERATES)
        if route is None:
            raise unknown_model(model)
        return route

    @asynccontextmanager
    async def open(
        self, route: Route, path: str, body: bytes, headers: Mapping[str, str]
    ) -> AsyncIterator[httpx.Response]:
        """The upstream's answer, its body still to be read. Leaving the block early breaks the request off.

        Raises `Unavailable` where the endpoint cannot be reached or stays silent, `BadGateway` where it does not take
        this server's key, or answers with a status that is not for the client, such as a redirect.
        """
        endpoint = route.endpoint
        sending = self._clients[endpoint].stream(
            "POST",
            endpoint.url(path, route.model),
            content=with_model(body.strip() or b"{}", route.model),
            headers={name: value for name in SENT_ON if (value := headers.get(name)) and value.isascii()}
            | {"accept-encoding": "identity"},
        )
        try:
            response = await sending.__aenter__()
        except httpx.ReadTimeout as error:
            raise Unavailable(f"{the(endpoint)} did not answer in time.") from error
        except TRANSPORT_ERRORS as error:
            raise Unavailable(unreachable(endpoint, error)) from error
        try:
            if response.status_code == httpx.codes.UNAUTHORIZED:
                raise BadGateway(key_refused(endpoint, response.status_code))
            if not (200 <= response.status_code < 300 or 400 <= response.status_code < 600):
                raise BadGateway(
                    f"{the(endpoint)} answered with status {response.status_code}, not as a model endpoint does: "
                    f"check {endpoint.set_by['base_url']}."
                )
            yield response
        finally:
            await sending.__aexit__(None, None, None)


def with_model(body: bytes, model: str) -> bytes:
    """A JSON object with another value of its `model`, and not a byte else changed. `body` has been parsed before."""
    pieces: list[bytes] = []
    depth, copied_to, name = 0, 0, orjson.dumps(model)
    for token in _TOKEN.finditer(body):
        match token[0]:
            case b"{" | b"[":
                depth += 1
            case b"}" | b"]":
                depth -= 1
            case text if depth == 1 and (colon := _COLON.match(body, token.end())):
                if orjson.loads(text) == "model" and (value := _TOKEN.match(body, colon.end())):
                    pieces += [body[copied_to : value.start()], name]
                    copied_to = value.end()
    if pieces:
        return b"".join([*pieces, body[copied_to:]])
    before, brace, after = body.partition(b"{")  # none was named, the default is
    return before + brace + b'"model":' + name + (b"" if after.strip() == b"}" else b",") + after


def used_tokens(end: bytes) -> int:
    """The tokens that an answer, or a stream of them, says it took, by its last bytes; 0 where it does not say."""
    told = _TOTAL.findall(end)
    return int(told[-1]) if told else 0


def answer_headers(response: httpx.Response) -> list[tuple[bytes, bytes]]:
    """The headers of an answer that are for the client."""
    named = response.headers.get("connection", "").lower().replace(" ", "").split(",")
    return [
        (name, value)
        for name, value in response.headers.raw
        if (lower := name.decode("latin-1").lower()) not in KEPT_BACK
        and lower not in named
        and not lower.startswith("access-control-")
    ]
