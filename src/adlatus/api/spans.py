"""The span of a request: which route, how it ended; never its query string, its body or its headers."""

from starlette.datastructures import Headers
from starlette.types import Scope

from adlatus.api.callers import SEEN
from adlatus.api.routers import PREFIX
from adlatus.telemetry.metrics import METHODS
from adlatus.telemetry.tracing import NO_SPAN, Span, Tracing

PREFIXES = (PREFIX, "/openai/v1", "/openai")
"""Where clients find the API, the longest first of those that begin alike."""

UNTRACED = frozenset(("/healthz", "/readyz", "/metrics"))
"""What machines ask all the time."""


def of(tracing: Tracing, scope: Scope, request_id: str) -> Span:
    """The span of a request, in the trace of its caller if that has one."""
    if scope["path"] in UNTRACED:
        return NO_SPAN
    headers = Headers(scope=scope)
    caller = {name: value for name in ("traceparent", "tracestate") if (value := headers.get(name))}
    server = scope.get("server") or (None, None)
    return tracing.span(
        _method(scope),
        {
            "http.request.method": _method(scope),
            "url.path": scope["path"],
            "url.scheme": scope.get("scheme"),
            "network.protocol.version": scope.get("http_version"),
            "server.address": server[0],
            "server.port": server[1],
            "adlatus.request_id": request_id,
        },
        kind="server",
        caller=caller,
    )


def route_of(scope: Scope) -> str | None:
    """The template of the path that a request was routed by, as its client knows it; None where there is no route."""
    route: str | None = getattr(scope.get("route"), "path", None)
    if route is None or not route.startswith(f"{PREFIX}/"):
        return route
    prefix = next((prefix for prefix in PREFIXES if scope["path"].startswith(f"{prefix}/")), "")
    return prefix + route.removeprefix(PREFIX)


def end(span: Span, scope: Scope, status: int) -> None:
    """Say how the request was answered; 0 says that it was not, because its client had left."""
    route = route_of(scope)
    if route:
        span.rename(f"{_method(scope)} {route}")
    span.set(
        {
            "http.route": route,
            "http.response.status_code": status or None,
            "adlatus.project_id": scope[SEEN].get("project"),
        }
    )
    if status >= 500:
        span.fail(str(status))


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in METHODS else "_OTHER"
