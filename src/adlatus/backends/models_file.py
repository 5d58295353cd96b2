"""The routing table as operators write it: the TOML file of `ADLATUS_MODELS_FILE`, checked at start.

Owns the file's format and the texts that say what is wrong with it; what a name then means is `routing`.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import orjson
from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, ValidationError

from adlatus.backends.routing import Endpoint, ImageUrls, Route
from adlatus.errors import StartupError

SETTING = "ADLATUS_MODELS_FILE"
REHEARSAL = "rehearsal"
"""The endpoint that a table may name without describing it."""

AnyImageUrls = ImageUrls | Literal["auto"]
MOST_BYTES = 2**20

_USUALLY = "It usually ends in /v1, as in http://localhost:11434/v1."
NO_HEADER = "or its value has a character that HTTP headers cannot hold, such as a line break at the end of a key"

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e]*")
_OURS = ("model", "messages", "stream")
_Text = Annotated[str, StringConstraints(min_length=1)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _EndpointEntry(_Entry):
    base_url: _Text
    api_key: SecretStr | None = None
    api_key_env: _Text | None = None
    api_key_header: _Text = "authorization"
    headers: dict[_Text, str] = {}
    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    image_urls: ImageUrls | None = None


class _ModelEntry(_Entry):
    endpoint: str
    model: _Text | None = None
    context_window: Annotated[int, Field(ge=1)] | None = None
    chat: bool = True
    vision: bool = True
    tools: bool = True
    json_schema: bool = True
    reasoning: bool = True
    parameters: dict[str, Any] = {}
    omit: list[_Text] = []
    rename: dict[_Text, _Text] = {}


class _Content(_Entry):
    endpoints: dict[_Text, _EndpointEntry] = {}
    models: Annotated[dict[_Text, _ModelEntry], Field(min_length=1)]


class ModelsFile:
    """A table as it was written, checked as far as it can be without its endpoints."""

    def __init__(self, path: Path, content: _Content) -> None:
        self._path = path
        self._content = content

    @property
    def wants_rehearsal(self) -> bool:
        """Whether some entry names the rehearsal model without describing an endpoint of that name."""
        named = {entry.endpoint for entry in self._content.models.values()}
        return REHEARSAL in named and REHEARSAL not in self._content.endpoints

    def routes(
        self, environ: Mapping[str, str], *, timeout_s: float, image_urls: AnyImageUrls, rehearsal: Endpoint | None
    ) -> list[Route]:
        """The routes in the file's order. Raises `StartupError` naming file, entry and what to do."""
        endpoints: dict[str, Endpoint] = {REHEARSAL: rehearsal} if rehearsal else {}
        for name, entry in self._content.endpoints.items():
            endpoints[name] = self._endpoint(name, entry, self._secret(name, entry, environ), timeout_s, image_urls)
        return [self._route(pattern, entry, endpoints) for pattern, entry in self._content.models.items()]

    def _secret(self, name: str, entry: _EndpointEntry, environ: Mapping[str, str]) -> str | None:
        if entry.api_key_env is None:
            return entry.api_key.get_secret_value() if entry.api_key else None
        if entry.api_key:
            raise _wrong(self._path, f"endpoints.{_key(name)}", "give either api_key or api_key_env")
        if secret := environ.get(entry.api_key_env):
            return secret
        raise _wrong(
            self._path, f"endpoints.{_key(name)}.api_key_env", f"{entry.api_key_env} is not set in the environment"
        )

    def _endpoint(
        self, name: str, entry: _EndpointEntry, secret: str | None, timeout_s: float, image_urls: AnyImageUrls
    ) -> Endpoint:
        where = f"endpoints.{_key(name)}"
        headers = {**entry.headers, **key_headers(secret, entry.api_key_header)}
        if unfit := unfit_header(headers):
            raise _wrong(self._path, where, f"the header '{unfit}' {NO_HEADER}")
        url = checked_url(entry.base_url, f"{SETTING} ({self._path}), {where}.base_url,")
        return Endpoint(
            name,
            entry.base_url,
            headers=headers,
            timeout_s=entry.timeout_s or timeout_s,
            image_urls=entry.image_urls or of_images(image_urls, url),
            set_by={
                "base_url": f"{where}.base_url in {SETTING}",
                "api_key": f"{where}.api_key in {SETTING}",
                "model": f"the `model` of its entry in {SETTING}",
                "image_urls": f"{where}.image_urls in {SETTING}",
            },
        )

    def _route(self, pattern: str, entry: _ModelEntry, endpoints: Mapping[str, Endpoint]) -> Route:
        where, model = f"models.{_key(pattern)}", entry.model or pattern
        if entry.endpoint not in endpoints:
            known = ", ".join(endpoints) or "none"
            raise _wrong(
                self._path, f"{where}.endpoint", f"there is no endpoint '{entry.endpoint}', known are: {known}"
            )
        if pattern.count("*") > 1:
            raise _wrong(self._path, where, "a name may hold one '*' only")
        if "*" in model and "*" not in pattern:
            raise _wrong(self._path, f"{where}.model", "a '*' here needs one in the name of the entry too")
        if ours := [
            name for name in (*entry.parameters, *entry.rename, *entry.rename.values(), *entry.omit) if name in _OURS
        ]:
            raise _wrong(self._path, where, f"'{ours[0]}' is the server's own, leave it out")
        try:
            orjson.dumps(entry.parameters)
        except orjson.JSONEncodeError as error:
            raise _wrong(self._path, f"{where}.parameters", f"cannot be written as JSON ({error})") from error
        settings = entry.model_dump(exclude={"endpoint", "model", "omit"})
        return Route(pattern, endpoints[entry.endpoint], model, omit=tuple(entry.omit), **settings)


def read(path: Path) -> ModelsFile:
    """Read and check a table. Raises `StartupError` naming file, entry and what to do."""
    try:
        with path.expanduser().open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise StartupError(f"{SETTING}: {path} has more than {MOST_BYTES} bytes, which is no table of models.")
        parsed = tomllib.loads(raw.decode())
    except OSError as error:
        raise StartupError(f"{SETTING}: cannot read {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:  # its own, and those of numbers, of UTF-8 and of deep nesting
        raise StartupError(f"{SETTING} ({path}) is not TOML: {error}.") from error
    try:
        return ModelsFile(path, _Content.model_validate(parsed))
    except ValidationError as error:
        raise _first_of(error, path) from error


def checked_url(base_url: str, setting: str, usually: str = _USUALLY) -> httpx.URL:
    """The address of an endpoint, parsed. Raises `StartupError` where it is none, without repeating a password.

    `usually` tells what such an address looks like.
    """
    try:
        url = httpx.URL(base_url.replace("{model}", "model"))
    except httpx.InvalidURL as error:
        raise StartupError(f"{setting} is not an http(s) address: {error}.") from error
    if url.scheme not in ("http", "https") or not url.host:
        shown = "" if "@" in base_url else f": '{base_url}'"
        raise StartupError(f"{setting} is not an http(s) address{shown}. {usually}")
    if "{model}" in base_url.partition("://")[2].partition("/")[0].partition("?")[0]:
        raise StartupError(f"{setting} has {{model}} in its host, where the names of clients must not stand.")
    return url


def key_headers(secret: str | None, header: str = "authorization") -> dict[str, str]:
    """The header that carries a key: as a bearer token in `authorization`, as it is in any other."""
    if not secret:
        return {}
    return {header: f"Bearer {secret}" if header.lower() == "authorization" else secret}


def unfit_header(headers: Mapping[str, str]) -> str | None:
    """The name of the first header that HTTP cannot carry: with the line break at the end of a key's file, often."""
    return next((name for name, value in headers.items() if not _HEADER.fullmatch(f"{name}:{value}")), None)


def of_images(image_urls: AnyImageUrls, url: httpx.URL) -> ImageUrls:
    """What becomes of links to images: by default only OpenAI's own endpoint, outside our network, may fetch them."""
    if image_urls != "auto":
        return image_urls
    return "forward" if url.host == "api.openai.com" else "inline"


def _first_of(error: ValidationError, path: Path) -> StartupError:
    found = error.errors(include_url=False)
    dotted = [each for each in found if each["type"] == "extra_forbidden" and isinstance(each["input"], dict)]
    first = (dotted or found)[0]
    match first["type"]:
        case "extra_forbidden" if dotted:
            problem = 'is not known here (a name with dots needs quotes, as in [models."gpt-4.1"])'
        case "extra_forbidden":
            problem = "is not known here"
        case "missing":
            problem = "is missing"
        case _:
            problem = first["msg"][0].lower() + first["msg"][1:]
    return _wrong(path, ".".join(_key(str(step)) for step in first["loc"] if step != "[key]"), problem)


def _key(name: str) -> str:
    """A key as TOML writes it."""
    plain = name.replace("-", "").replace("_", "").isalnum() and name.isascii()
    return name if plain else f'"{name}"'


def _wrong(path: Path, place: str, problem: str) -> StartupError:
    return StartupError(f"{SETTING} ({path}): {place or 'the file'}: {problem}.")
