"""Log lines: one per event, to stderr, with the ids of the request and the run that they are about."""

import json
import logging
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, Literal

import orjson
import structlog

# Without local variables: they hold keys and what people wrote
_TRACEBACKS = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)


def configure_logging(style: Literal["auto", "console", "json"], level: str) -> None:
    """Send structlog and the standard library's loggers to stderr, one line per event, with request and run ids."""
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[structlog.typing.Processor] = (
        [
            structlog.dev.ConsoleRenderer(sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback),
            _encoded,
        ]
        if console
        else [
            structlog.processors.ExceptionRenderer(_TRACEBACKS),
            _flat_event,
            structlog.processors.JSONRenderer(serializer=_json),
        ]
    )
    _PROCESSORS[:] = [*shared, *renderer]
    structlog.configure(
        processors=_PROCESSORS,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=_Lines,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer, _decoded],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("uvicorn.access", "uvicorn.error", "asyncio", "alembic", "httpx"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))


_PROCESSORS: list[structlog.typing.Processor] = []
"""How an event becomes a line. One list for good, because loggers that have been used keep it."""


class _Lines:
    """Writes ready lines to stderr past the standard library's logging, which costs several times as much."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def msg(self, line: bytes) -> None:
        with suppress(OSError, ValueError):  # where nobody reads the log, work goes on
            sys.stderr.buffer.write(line + b"\n")
            sys.stderr.buffer.flush()

    debug = info = warning = error = critical = msg


class log_context:  # noqa: N801 - a context manager, and one that costs little: every request has one
    """Put ids such as `request_id` and `run_id` on every log line written inside."""

    def __init__(self, **ids: str) -> None:
        self._ids = ids

    def __enter__(self) -> None:
        self._before = structlog.contextvars.bind_contextvars(**self._ids)

    def __exit__(self, *_: object) -> None:
        structlog.contextvars.reset_contextvars(**self._before)


def _flat_event(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:  # JSON lines start with what a reader greps for
    return {"time": event.pop("timestamp", None), "level": event.pop("level", None), **event}


def _json(event: MutableMapping[str, Any], **options: Any) -> bytes:
    try:
        return orjson.dumps(event, **options)
    except TypeError:  # numbers of more than 64 bits, halves of surrogate pairs in names of files
        return json.dumps(event, **options).encode()


def _encoded(_logger: object, _method: str, line: Any) -> bytes:
    return str(line).encode(errors="backslashreplace")


def _decoded(_logger: object, _method: str, line: Any) -> str:
    return bytes(line).decode()
