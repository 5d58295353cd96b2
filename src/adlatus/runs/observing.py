"""What is measured and traced of a run while it is executed. Never what anybody wrote."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Self

from sqlalchemy import Text, and_, select

from adlatus.backends.chunks import Chunk
from adlatus.backends.routing import Route
from adlatus.errors import DatabaseUnavailable
from adlatus.resources import Resources
from adlatus.runs.endings import Ending
from adlatus.runs.turn import Turn
from adlatus.store.db import param
from adlatus.store.leases import Lease
from adlatus.store.tables import assistants
from adlatus.telemetry.tracing import NO_SPAN, Attributes
from adlatus.wire.common import Json
from adlatus.wire.runs import RunStatus

PROVIDER = {"gen_ai.provider.name": "openai"}
"""Whose API is spoken; `server.address` tells whose models answer."""


@asynccontextmanager
async def executing(lease: Lease, resources: Resources) -> AsyncIterator[None]:
    """A run is executed in this block."""
    claimed, tracing = lease.claimed, resources.tracing
    if claimed and (lease.attempt == 1 or claimed["status"] == RunStatus.QUEUED) and not lease.abandoned:
        resources.metrics.run_wait_seconds.observe(lease.waited_s)
    if tracing is None:
        yield
        return
    described: Attributes = {
        "gen_ai.operation.name": "invoke_agent",
        **PROVIDER,
        "gen_ai.conversation.id": lease.thread_id,
        "adlatus.run_id": lease.run_id,
        "adlatus.project_id": lease.project_id,
        "adlatus.attempt": lease.attempt,
    }
    with tracing.span("invoke_agent", described) as span:
        if claimed:
            scope = {"the_assistant": claimed["assistant_id"], "the_project": lease.project_id}
            named = None
            with suppress(DatabaseUnavailable):  # the run will see to that
                named = await resources.database.fetch_row(_NAME, **scope)
            name = named and named["name"]
            span.rename(f"invoke_agent {name}" if name else "invoke_agent")
            span.set(
                {
                    "gen_ai.agent.id": claimed["assistant_id"],
                    "gen_ai.agent.name": name or None,
                    "gen_ai.request.model": claimed["model"],
                }
            )
        yield


def ended(lease: Lease, resources: Resources, ending: Ending) -> None:
    """The run that is executed here has come to its end."""
    count, took = resources.metrics.run_ended(ending.status)
    count.inc()
    took.observe(lease.age_s)
    if resources.tracing:
        span = resources.tracing.current()
        span.set({"adlatus.run_status": ending.status.value})
        if ending.error:
            span.fail(ending.error.code)


class Asking:
    """A model is asked in this block. `first_of` is the run's lease where nobody has heard anything of the run yet."""

    def __init__(
        self, resources: Resources, route: Route, request: Json, turn: Turn, *, first_of: Lease | None
    ) -> None:
        self._metrics = resources.metrics
        self._label = resources.llm.routing.label(route.model)
        self._turn = turn
        self._first_of = first_of
        self.heard = False
        self._asked_at = time.monotonic()
        self._span = NO_SPAN
        if resources.tracing:
            self._span = resources.tracing.span(f"chat {route.model}", _of(route, request), kind="client")

    def __enter__(self) -> Self:
        self._span.__enter__()
        return self

    def hears(self, chunks: list[Chunk]) -> None:
        """The answer begins with these chunks, which have something in them."""
        self.heard = True
        self._metrics.model_first_token_seconds.labels(self._label).observe(time.monotonic() - self._asked_at)
        if self._span is not NO_SPAN:
            whole = next((chunk for chunk in chunks if isinstance(chunk, dict)), {})
            said = {name: value for name in ("id", "model") if isinstance(value := whole.get(name), str)}
            self._span.set({f"gen_ai.response.{name}": value[:200] for name, value in said.items()})

    def tells(self) -> None:
        """What was heard has been told to the run's client."""
        if self._first_of:
            self._metrics.run_first_token_seconds.observe(self._first_of.age_s)
            self._first_of = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        outcome = "failed" if kind else "done"
        self._metrics.model_seconds.labels(self._label, outcome).observe(time.monotonic() - self._asked_at)
        if self._span is not NO_SPAN:
            turn, used = self._turn, self._turn.usage
            reason = "tool_calls" if turn.calls and turn.finish_reason == "stop" else turn.finish_reason
            self._span.set({"gen_ai.response.finish_reasons": (reason,) if reason else None})
            if used:
                self._span.set(
                    {
                        "gen_ai.usage.input_tokens": used.prompt_tokens,
                        "gen_ai.usage.output_tokens": used.completion_tokens,
                    }
                )
        self._span.__exit__(kind, error, traceback)


def _of(route: Route, request: Json) -> Attributes:
    address = route.endpoint.url("")
    return {
        "gen_ai.operation.name": "chat",
        **PROVIDER,
        "gen_ai.request.model": route.model,
        "gen_ai.request.temperature": request.get("temperature"),
        "gen_ai.request.top_p": request.get("top_p"),
        "gen_ai.request.stream": True,
        "server.address": address.host,
        "server.port": address.port or {"http": 80, "https": 443}.get(address.scheme),
        "adlatus.endpoint": route.endpoint.name,
    }


_NAME = select(assistants.c.name).where(
    and_(
        assistants.c.id == param("the_assistant", Text()),
        assistants.c.project_id == param("the_project", Text()),
    )
)
