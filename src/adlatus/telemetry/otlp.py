"""Spans by OpenTelemetry's SDK, sent by OTLP over HTTP to the collector that its variables name.

Its providers are not made global: libraries that would trace by themselves, with query strings and messages of
exceptions, find none.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Self

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from adlatus import __version__
from adlatus.telemetry.tracing import Attributes, Kind, Span

LAST_S = 3
"""How long a stop waits for the last spans to be sent."""

_KINDS = {"internal": SpanKind.INTERNAL, "server": SpanKind.SERVER, "client": SpanKind.CLIENT}
_CONTEXT = TraceContextTextMapPropagator()


@asynccontextmanager
async def sending(instance_id: str) -> AsyncIterator["OtlpTracing"]:
    """Tracing until the block is left; what is left then is sent, if the collector takes it soon."""
    resource = Resource.create({"service.version": __version__, "service.instance.id": instance_id})
    if str(resource.attributes["service.name"]).startswith("unknown_service"):  # OTEL_SERVICE_NAME was not set
        resource = resource.merge(Resource({"service.name": "adlatus"}))
    exporter, provider = OTLPSpanExporter(), TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield OtlpTracing(provider)
    finally:
        ending = asyncio.create_task(asyncio.to_thread(provider.shutdown))  # it sends what is left
        await asyncio.wait([ending], timeout=LAST_S)
        if not ending.done():
            exporter.shutdown()  # type: ignore[no-untyped-call]  # it tries no more
        await ending


class OtlpTracing:
    """A `Tracing`."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("adlatus", __version__)

    def span(
        self, name: str, attributes: Attributes, *, kind: Kind = "internal", caller: Mapping[str, str] | None = None
    ) -> Span:
        """See `Tracing`."""
        context = None if caller is None else _CONTEXT.extract(caller)
        started = self._tracer.start_span(name, context, _KINDS[kind], _said(attributes))
        return OtlpSpan(started)

    def current(self) -> Span:
        """See `Tracing`."""
        return OtlpSpan(trace.get_current_span())

    def headers(self) -> Mapping[str, str]:
        """See `Tracing`."""
        headers: dict[str, str] = {}
        _CONTEXT.inject(headers)
        return headers


class OtlpSpan(Span):
    """A `Span` that is recorded."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._open: AbstractContextManager[trace.Span] | None = None

    def __enter__(self) -> Self:
        # Exceptions are not recorded: their messages may hold what people wrote
        self._open = trace.use_span(self._span, record_exception=False, set_status_on_exception=False)
        self._open.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _traceback: object) -> None:
        assert self._open is not None
        if kind is not None:
            self.fail(kind.__qualname__)
        self._open.__exit__(None, None, None)
        self._span.end()

    def set(self, attributes: Attributes) -> None:
        """See `Span`."""
        self._span.set_attributes(_said(attributes))

    def rename(self, name: str) -> None:
        """See `Span`."""
        self._span.update_name(name)

    def fail(self, kind: str) -> None:
        """See `Span`."""
        self._span.set_attribute("error.type", kind)
        self._span.set_status(Status(StatusCode.ERROR))


def _said(attributes: Attributes) -> dict[str, str | bool | int | float | tuple[str, ...]]:
    return {
        name: value if isinstance(value, str | bool | int | float) else tuple(value)
        for name, value in attributes.items()
        if value is not None
    }
