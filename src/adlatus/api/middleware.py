"""Around every request: ids, response headers, log line, metrics, the last error boundary; and the guards of a server
without keys, which any web page could otherwise reach (DESIGN.md, section 3, rule 11)."""

import time

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adlatus.api import spans
from adlatus.api.callers import SEEN
from adlatus.errors import ApiError, Forbidden, InternalError, InvalidRequest, body
from adlatus.ids import new_request_id
from adlatus.settings import host_name, is_loopback
from adlatus.telemetry import Metrics, log_context
from adlatus.telemetry.tracing import NO_SPAN
from adlatus.tenants import rates
from adlatus.wire.events import compact

log = structlog.get_logger(__name__)

_ALWAYS = {
    "x-content-type-options": "nosniff",
    "openai-version": "2020-10-01",
    "openai-organization": "adlatus",
}


class Observe:
    """Gives a request its id, and its answer the original's headers; counts, logs, and turns faults into a 500."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, begun = new_request_id(), time.perf_counter()
        status, seconds = 0, 0.0
        scope[SEEN] = {}

        async def send_with_headers(message: Message) -> None:
            nonlocal status, seconds
            if message["type"] == "http.response.start":
                status, seconds = message["status"], time.perf_counter() - begun
                self._add_headers(message, scope, request_id, seconds)
            await send(message)

        tracing = getattr(scope["app"].state, "tracing", None)
        traced = spans.of(tracing, scope, request_id) if tracing else NO_SPAN
        with log_context(request_id=request_id), traced as span:
            try:
                if b"%00" in scope.get("raw_path", b"") or b"%00" in scope["query_string"]:
                    raise InvalidRequest("Paths and query strings must not hold the NUL character (%00).")
                await self._app(scope, receive, send_with_headers)
            except ApiError as error:
                await respond(error, send_with_headers)
            except Exception:
                log.exception("request failed", method=scope["method"], path=scope["path"])
                if status:  # too late for an answer: break the connection off, so that the client notices
                    raise
                await respond(InternalError(), send_with_headers)
            finally:
                self._count(scope, status, seconds)
                if span is not NO_SPAN:
                    spans.end(span, scope, status)

    def _add_headers(self, message: Message, scope: Scope, request_id: str, seconds: float) -> None:
        """*Source*: recorded response headers."""
        seen, ours = scope[SEEN], {**_ALWAYS, "x-request-id": request_id}
        if project := seen.get("project"):
            ours["openai-project"] = project
        if standing := seen.get("standing"):
            ours |= rates.headers(standing)
        ours["openai-processing-ms"] = str(round(seconds * 1000))
        mine = {name.encode(): value.encode() for name, value in ours.items()}
        others = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in mine]
        message["headers"] = [*others, *mine.items()]

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = spans.route_of(scope) or "none"
        counter, took = self._metrics.request(scope["method"], route, status)
        counter.inc()
        took.observe(seconds)
        log.info("request", method=scope["method"], path=scope["path"], status=status, ms=round(seconds * 1000, 1))


class GuardKeyless:
    """As long as a server has no keys: serves loopback `Host` names, and no foreign web page."""

    def __init__(self, app: ASGIApp, allowed_origins: tuple[str, ...]) -> None:
        self._app = app
        self._allowed = allowed_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        guarded = scope["type"] == "http" and scope["app"].state.resources.access.keyless
        if guarded and (refusal := self._refusal(Headers(scope=scope))):
            await respond(refusal, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, headers: Headers) -> ApiError | None:
        host = host_name(f"//{headers.get('host', '')}")
        if not is_loopback(host):
            return Forbidden(
                f"This server has no API keys and answers on loopback only, not as '{host[:128]}'. "
                "Use http://127.0.0.1, or make a key with `adlatus keys create`."
            )
        origin = headers.get("origin")
        if origin is not None and not self._is_ours(origin):
            return Forbidden(
                f"This server has no API keys and does not answer web pages of '{origin[:128]}'. "
                "Set ADLATUS_CORS_ORIGINS to let them in."
            )
        if origin is None and headers.get("sec-fetch-site") == "cross-site":
            return Forbidden("This server has no API keys and does not answer requests that other web pages make.")
        return None

    def _is_ours(self, origin: str) -> bool:
        if origin in self._allowed or "*" in self._allowed:
            return True
        return is_loopback(host_name(origin))


async def respond(error: ApiError, send: Send) -> None:
    """Send an error as a whole response."""
    headers = [(name.encode(), value.encode()) for name, value in error.headers.items()]
    await send(
        {
            "type": "http.response.start",
            "status": error.status,
            "headers": [(b"content-type", b"application/json"), *headers],
        }
    )
    await send({"type": "http.response.body", "body": compact(body(error))})
