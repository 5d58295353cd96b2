"""Who calls: the key of a request, the project that it opens, and the header that the Assistants API wants."""

from typing import Any

from fastapi import Request
from starlette.datastructures import Headers

from adlatus.errors import InvalidRequest, Unauthorized
from adlatus.resources import Resources
from adlatus.settings import DEFAULT_PROJECT

NO_KEY = (
    "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
    "(i.e. Authorization: Bearer YOUR_KEY), or as the password field (with blank username) if you're accessing the API "
    "from your browser and are prompted for a username and password. You can obtain an API key from your operator."
)

SEEN = "adlatus.seen"
"""Key of the request's scope under which the middleware learns what the route found out."""

AZURE = "adlatus.azure"
"""Key of the request's scope under which is kept what a client of Azure's has asked for."""


def secret_in(headers: Headers) -> str | None:
    """The key that a request comes with, if any. Azure's clients send a bare one as `api-key` instead."""
    sent = headers.get("authorization")
    if sent is None:
        return headers.get("api-key", "").strip() or None
    scheme, _, secret = sent.partition(" ")
    return secret.strip() or None if scheme.lower() == "bearer" else None


async def project_of(resources: Resources, secret: str | None) -> str:
    """The project that a key opens. On a server without keys any key or none opens the default project.

    Raises `Unauthorized`.
    """
    if resources.access.keyless:
        return DEFAULT_PROJECT
    if secret is None:
        raise Unauthorized(NO_KEY)
    if project_id := await resources.access.project_of(secret):
        return project_id
    raise Unauthorized(
        f"Incorrect API key provided: {_masked(secret)}. You can obtain an API key from your operator, who makes one "
        "with `adlatus keys create`.",
        code="invalid_api_key",
    )


async def project(request: Request) -> str:
    """The caller's project, once for each request; where its limits do not allow another request, that is all."""
    seen: dict[str, Any] = request.scope[SEEN]
    if "project" not in seen:
        resources: Resources = request.app.state.resources
        project_id = await project_of(resources, secret_in(request.headers))
        _check_named(request.headers.get("openai-project"), project_id, resources)
        seen["project"] = project_id
        seen["standing"] = await resources.rates.let_in(project_id)
    found: str = seen["project"]
    return found


def _check_named(named: str | None, project_id: str, resources: Resources) -> None:
    """*Source* of the words: field reports."""
    if named and named != project_id and not resources.access.keyless:
        raise Unauthorized("OpenAI-Project header should match project for API key", code="mismatched_project")


def check_beta(request: Request) -> None:
    """The rules of the `OpenAI-Beta` header. Azure wanted none. *Source*: field reports (semantics, section 3)."""
    openai_beta = request.headers.get("openai-beta")
    if openai_beta == "assistants=v2":
        return
    if openai_beta is None:
        if AZURE in request.scope:
            return
        raise InvalidRequest(
            "You must provide the 'OpenAI-Beta' header to access the Assistants API. Please try again by setting the "
            "header 'OpenAI-Beta: assistants=v2'.",
            code="invalid_beta",
        )
    for entry in openai_beta.split(","):
        name, _, version = entry.strip().partition("=")
        if not version:
            raise InvalidRequest(
                f"Invalid beta header provided: '{entry.strip()}'. The header should be in the format "
                "'OpenAI-Beta: example_beta=v1'.",
                code="invalid_beta",
            )
        if name == "assistants" and version == "v1":
            raise InvalidRequest(
                "The v1 Assistants API has been deprecated. See the migration guide for more information: "
                "https://platform.openai.com/docs/assistants/migration.",
                code="invalid_beta",
            )
        if (name, version) != ("assistants", "v2"):
            raise InvalidRequest(f"Unknown beta requested: '{name}'.", code="invalid_beta")


def _masked(secret: str) -> str:
    return f"{secret[:3]}***{secret[-4:]}" if len(secret) > 12 else "***"
