"""Spans: what a process did, when, for whom, by OpenTelemetry's conventions. Off unless a collector is configured.

Then `Resources.tracing` is None, and what could be traced costs one look whether it is. Contents of messages, queries
and results are never in a span.
"""

import importlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Literal, Protocol, Self
from urllib.parse import urlsplit

from adlatus.errors import StartupError

Value = str | bool | int | float | Sequence[str]
Attributes = Mapping[str, Value | None]
"""What is said of a span; None says nothing."""

Kind = Literal["internal", "server", "client"]

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"
PACKAGES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


class Span:
    """A span that nobody records: what there is where tracing is off. It ends with its block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _traceback: object) -> None:
        """Say what has ended it."""

    def set(self, attributes: Attributes) -> None:
        """Say more of it."""

    def rename(self, name: str) -> None:
        """Its name is known by now."""

    def fail(self, kind: str) -> None:
        """What it stands for has failed, by an error of a kind that has few values."""


NO_SPAN = Span()


class Tracing(Protocol):
    """Makes spans. One that is open in a task is the parent of those that are opened there, or in tasks made there."""

    def span(
        self, name: str, attributes: Attributes, *, kind: Kind = "internal", caller: Mapping[str, str] | None = None
    ) -> Span:
        """A span to enter. `caller` are the headers of a request, which may say whose trace goes on here."""

    def current(self) -> Span:
        """The span that is open here."""

    def headers(self) -> Mapping[str, str]:
        """What tells whoever gets a request from here that it belongs to the trace."""


def configured(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether spans are to be sent somewhere, by OpenTelemetry's own variables."""
    off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    return not off and exporter != "none" and any(environment.get(name) for name in ENDPOINTS)


@asynccontextmanager
async def open_tracing(instance_id: str) -> AsyncIterator[Tracing | None]:
    """Tracing until the block is left, None where it is off. Raises `StartupError` with advice."""
    if not configured():
        yield None
        return
    check()
    otlp = importlib.import_module("adlatus.telemetry.otlp")
    async with otlp.sending(instance_id) as tracing:
        yield tracing


def check() -> str:
    """The collector that is named, without what may be secret in its address. Raises `StartupError` with advice."""
    name = next(name for name in ENDPOINTS if os.environ.get(name))
    if not all(map(_is_there, PACKAGES)):
        raise StartupError(
            f"{name} is set, but the packages that send traces are not installed: pip install 'adlatus[otel]', or "
            "unset it."
        )
    protocol = next((value for each in PROTOCOLS if (value := os.environ.get(each))), PROTOCOL)
    if protocol != PROTOCOL:
        raise StartupError(
            f"Traces are sent by {PROTOCOL}, not by '{protocol}': unset {' and '.join(PROTOCOLS)}, and name the "
            f"collector's HTTP port, usually 4318, in {name}."
        )
    if not os.environ[name].startswith(("http://", "https://")):
        raise StartupError(f"{name} is not an address such as http://localhost:4318.")
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if exporter != "otlp":
        raise StartupError(f"OTEL_TRACES_EXPORTER may be 'otlp' or 'none', not '{exporter}'.")
    parts = urlsplit(os.environ[name])
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # nor is what it would be in
        return False
