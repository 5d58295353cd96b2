"""Which endpoint answers for which model name. Pure: knows neither files nor connections."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import quote

import httpx

from adlatus.errors import InvalidRequest
from adlatus.wire.common import Json

LONGEST_NAME = 512
"""Characters of a model's name, as the wire has it for assistants."""


ImageUrls = Literal["forward", "inline", "refuse"]
"""What becomes of a link to an image: the endpoint fetches it, or we do, or nobody."""


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server.

    `base_url` may hold `{model}`, which stands for the upstream's name of the model, and a query string. `image_urls`
    says what becomes of links to images. `set_by` says where an operator sets what may be wrong: `base_url`,
    `api_key`, `model`, `image_urls`.
    """

    name: str
    base_url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)
    timeout_s: float = 120
    image_urls: ImageUrls = "inline"
    set_by: Mapping[str, str] = field(default_factory=dict, hash=False)

    def url(self, path: str, model: str = "") -> httpx.URL:
        """The address of a path such as `/chat/completions`, for one of its models."""
        return _address(self.base_url, path, "" if self.lists_models else model)

    @property
    def shown(self) -> str:
        """The address for people and logs, without what may be secret in it: a password, and a query string's keys."""
        return str(httpx.URL(self.base_url).copy_with(username=None, password=None, query=None))

    def can_ask_for(self, model: str) -> bool:
        """Whether the upstream's name of a model fits into the address: dots alone would lead to another one."""
        return self.lists_models or model not in ("", ".", "..")

    @property
    def lists_models(self) -> bool:
        """Whether there is one address that lists all its models."""
        return "{model}" not in self.base_url


LOCAL = Endpoint("local", "local:{model}")
"""What stands for the embedding model of this very process, which has no address."""


@dataclass(frozen=True)
class Route:
    """What a model name, or a pattern with one `*`, stands for.

    `model` is the upstream's name; a `*` in it is what the pattern's `*` matched. `parameters` fill in what a run's
    request does not carry, `omit` and `rename` adapt it to what the upstream understands.
    """

    pattern: str
    endpoint: Endpoint
    model: str = "*"
    context_window: int | None = None
    chat: bool = True
    vision: bool = True
    tools: bool = True
    json_schema: bool = True
    reasoning: bool = True
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    omit: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict, hash=False)

    def adapted(self, request: Json) -> Json:
        """A chat request as this route's upstream wants it."""
        full = {**self.parameters, **request, "model": self.model}
        if not self.reasoning:
            full.pop("reasoning_effort", None)
        return {self.rename.get(name, name): value for name, value in full.items() if name not in self.omit}


class Routing:
    """Model names to routes: an exact name first, then patterns in the order of the table, then the default."""

    def __init__(
        self,
        routes: Sequence[Route],
        default: Route | None,
        default_elsewhere: Route | None = None,
        embeddings: Sequence[Route] = (),
    ) -> None:
        """`embeddings` is looked at before the default, and only for what is to be embedded."""
        self._exact = {route.pattern: route for route in routes if "*" not in route.pattern}
        self._patterns = [(_regex(route.pattern), route) for route in routes if "*" in route.pattern]
        self._routes = [*routes, *([default] if default else [])]
        self._embeddings = [(_regex(route.pattern), route) for route in embeddings]
        self._default = default
        self._labels = frozenset(route.model for route in self.fixed)
        self._default_elsewhere = default_elsewhere or default

    @property
    def aliases(self) -> tuple[Route, ...]:
        """The routes whose names are whole, and the name of the local embedding model."""
        own = (route for _, route in self._embeddings if route.endpoint is LOCAL and route.pattern == route.model)
        return (*self._exact.values(), *own)

    @property
    def fixed(self) -> tuple[Route, ...]:
        """The routes that lead to one model, whatever name was asked for."""
        return tuple(route for route in self._routes if "*" not in route.model)

    def label(self, model: str) -> str:
        """An upstream's name of a model for metrics, if it is one of few: not one that a client has made up."""
        return model if model in self._labels else "other"

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Every endpoint that a name of the table leads to, or every other name."""
        return tuple(dict.fromkeys(route.endpoint for route in self._routes))

    @property
    def addressed(self) -> tuple[Endpoint, ...]:
        """The same, and the endpoints for embeddings alone, of which some have no list of their models."""
        more = (route.endpoint for _, route in self._embeddings if route.endpoint is not LOCAL)
        return tuple(dict.fromkeys((*self.endpoints, *more)))

    def resolve(self, model: str, *, generates: bool = True) -> Route | None:
        """The route of a name, with the upstream's name filled in; None where the name leads nowhere.

        `ADLATUS_MODEL` stands in for the names of models that generate text, not for those of embeddings.
        """
        route = self._meant(model, generates) if len(model) <= LONGEST_NAME else None
        return route if route and route.endpoint.can_ask_for(route.model) else None

    def resolve_embedding(self, model: str) -> Route | None:
        """The same for the name of an embedding model."""
        if len(model) > LONGEST_NAME:
            return None
        route = self._named(model) or _first(self._embeddings, model)
        if route is None:
            return self.resolve(model, generates=False)
        return route if route.endpoint.can_ask_for(route.model) else None

    def passing(self, name: str, endpoint: Endpoint) -> Route | None:
        """The route by which a name of an endpoint leads to that very model, for text or for something else."""
        routes = (self.resolve(name, generates=generates) for generates in (True, False))
        return next((route for route in routes if route and (route.endpoint, route.model) == (endpoint, name)), None)

    def _meant(self, model: str, generates: bool) -> Route | None:
        if named := self._named(model):
            return named
        default = self._default if generates else self._default_elsewhere
        return default and replace(default, model=default.model.replace("*", model))

    def _named(self, model: str) -> Route | None:
        return self._exact.get(model) or _first(self._patterns, model)

    def for_assistants(self, model: str, *, tools: Sequence[Json] = (), response_format: str | Json = "auto") -> Route:
        """The route of a model that an assistant or a run names.

        Raises `InvalidRequest` where the name leads nowhere, or to a model that cannot do what is asked of it.
        *Source* of the first two texts: semantics, section 3.
        """
        route = self.resolve(model)
        if route is None:
            raise InvalidRequest(
                f"The requested model '{model}' does not exist.", param="model", code="model_not_found"
            )
        if not route.chat:
            raise InvalidRequest(
                f"The requested model '{model}' cannot be used with the Assistants API.",
                param="model",
                code="unsupported_model",
            )
        if tools and not route.tools:
            raise _unsupported("tools", "'tools' are", model)
        if isinstance(response_format, dict) and response_format["type"] == "json_schema" and not route.json_schema:
            raise _unsupported("response_format", "'response_format' of type 'json_schema' is", model)
        return route


def _unsupported(param: str, what: str, model: str) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid parameter: {what} not supported with this model: '{model}'.", param=param, code="unsupported_value"
    )


def _first(patterns: Sequence[tuple[re.Pattern[str], Route]], model: str) -> Route | None:
    for regex, route in patterns:
        if matched := regex.fullmatch(model):
            return replace(route, model=route.model.replace("*", matched[1])) if "*" in route.model else route
    return None


def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile("(.*)".join(re.escape(part) for part in pattern.split("*")), re.DOTALL)


@lru_cache(maxsize=1024)
def _address(base_url: str, path: str, model: str) -> httpx.URL:
    url = httpx.URL(base_url.replace("{model}", quote(model, safe="")))
    before, question, query = url.raw_path.partition(b"?")
    return url.copy_with(raw_path=before.rstrip(b"/") + path.encode() + question + query)
