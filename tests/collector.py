"""A collector of traces, over real HTTP: what a server sends, decoded."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SentSpan

from tests.retrieval.service import Answer, answering
from tests.runs.transcripts import eventually


@dataclass(frozen=True)
class Span:
    """A span as it was sent; ids are hexadecimal."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    failed: bool


@dataclass
class Collector:
    """What has arrived. `raw` is all of it as bytes, `resource` what the last sender said of itself."""

    spans: list[Span] = field(default_factory=list)
    raw: bytes = b""
    resource: dict[str, Any] = field(default_factory=dict)
    hide: Callable[[], None] = lambda: None
    """Take its address out of the environment: servers that are opened from now on do not know it."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, path: str, content: bytes) -> None:
        assert path == "/v1/traces"
        sent = ExportTraceServiceRequest.FromString(content)
        with self._lock:
            self.raw += content
            for of_resource in sent.resource_spans:
                self.resource = _values(of_resource.resource)
                self.spans += [_span(span) for of_scope in of_resource.scope_spans for span in of_scope.spans]

    def named(self, beginning: str, **attributes: Any) -> list[Span]:
        """The spans whose names begin so, once there are any; `run_id="r"` is `adlatus.run_id`."""
        wanted = {f"adlatus.{name}": value for name, value in attributes.items()}

        def found() -> list[Span]:
            with self._lock:
                spans = [span for span in self.spans if wanted.items() <= span.attributes.items()]
            return [span for span in spans if span.name.startswith(beginning)]

        return eventually(found)

    def below(self, parent: Span) -> list[Span]:
        """The children of a span, as far as they are there."""
        with self._lock:
            return [span for span in self.spans if span.parent_id == parent.span_id]


def _values(described: Any) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in described.attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    assert kind
    return [_value(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, kind)


def _span(sent: SentSpan) -> Span:
    return Span(
        sent.name,
        SentSpan.SpanKind.Name(sent.kind).removeprefix("SPAN_KIND_").lower(),
        sent.trace_id.hex(),
        sent.span_id.hex(),
        sent.parent_span_id.hex(),
        _values(sent),
        sent.status.code == 2,
    )


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector to which the servers that are opened in the block send their spans."""
    collector = Collector()

    def respond(request: BaseHTTPRequestHandler, body: bytes) -> Answer:
        collector.take(request.path, body)
        return 200, b""

    with answering(respond) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        collector.hide = patch.undo
        yield collector
