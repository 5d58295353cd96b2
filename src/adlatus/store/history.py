"""The statements that read a thread for its next run: page by page, from either end.

A page is of messages. The calls of functions of a run come with the first of its messages in the page, so that the
usual thread is one round trip.
"""

from functools import cache
from typing import Any, Literal

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    ScalarSelect,
    Select,
    Text,
    UnaryExpression,
    and_,
    case,
    cast,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by

from adlatus.store.db import param
from adlatus.store.tables import messages, run_steps
from adlatus.wire.messages import MessageStatus
from adlatus.wire.steps import StepStatus, tool_calls

LASTING = ("function", "code_interpreter")
"""The calls of earlier runs that a model is shown. What those have found their messages tell, and may be found again;
but what code has defined stays.
"""

_called = func.json_array_elements(run_steps.c.step_details["tool_calls"]).table_valued("value")
_calls_lastingly = exists(
    select(literal(1))
    .select_from(_called)
    .where(run_steps.c.type == "tool_calls", cast(_called.c.value, JSON)["type"].as_string().in_(LASTING))
)

Order = Literal["newest first", "oldest first"]

FIRST_PAGE = 64
"""Messages that are read first: most threads have no more."""
PAGE_SIZES = (16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
PAGE_BYTES = 4 * 2**20
"""What the contents of a page's messages may take in the database, compressed or not, but for the last of them."""
START: dict[Order, tuple[int, int]] = {"newest first": (2**63 - 1, 2**63 - 1), "oldest first": (-1, -1)}
"""The cursor before the first page: a (created_at, seq) beyond all messages."""

_finished = messages.c.status != MessageStatus.IN_PROGRESS
_told = or_(
    run_steps.c.type == "message_creation",
    and_(run_steps.c.type == "tool_calls", run_steps.c.status == StepStatus.COMPLETED),
)
"""The steps that say where the calls with outputs lie between the messages."""


@cache
def page(order: Order, size: int) -> Select[Any]:
    """Messages of a thread beyond a cursor, but for those in progress and those of the run that asks.

    `steps` has the details of a run's steps in their order, with the first of its messages, if there are calls among
    them. `found` is how many messages there are: those after the first `PAGE_BYTES` are left to the next page. The
    size is part of the text: not knowing it, PostgreSQL thinks of a tenth of the table, and compiles.
    """
    newest_first = order == "newest first"
    thread = param("the_thread", Text())
    # The same as `thread_id =` and a cursor, but for the planner: it takes every thread for as short as the average,
    # and would rather sort a whole one than walk along the index
    position = tuple_(messages.c.thread_id, messages.c.created_at, messages.c.seq)
    cursor = tuple_(thread, param("from_created_at", BigInteger()), param("from_seq", BigInteger()))
    beyond = (
        (messages.c.thread_id >= thread, position < cursor)
        if newest_first
        else (messages.c.thread_id <= thread, position > cursor)
    )
    found = (
        select(messages)
        .where(*beyond, _finished, messages.c.run_id.is_distinct_from(param("the_run", Text())))
        .order_by(*_in_order(newest_first, messages.c.thread_id, messages.c.created_at, messages.c.seq))
        .limit(literal_column(str(size)))
        .subquery("found")
    )
    keys = _in_order(newest_first, found.c.created_at, found.c.seq)
    stored_bytes = func.pg_column_size(found.c.content)
    counted = select(
        *found.c,
        func.count().over().label("found"),
        (func.sum(stored_bytes).over(order_by=keys, rows=(None, 0)) - stored_bytes).label("bytes_before"),
        func.lag(found.c.run_id).over(order_by=keys).label("run_before"),
    ).subquery("page")
    is_first = and_(counted.c.run_id.is_not(None), counted.c.run_before.is_distinct_from(counted.c.run_id))
    return (
        select(
            *(counted.c[column.name] for column in messages.c),
            counted.c.found,
            case((is_first, _steps_of(counted.c.run_id))).label("steps"),
        )
        .where(counted.c.bytes_before < PAGE_BYTES)
        .order_by(*_in_order(newest_first, counted.c.created_at, counted.c.seq))
    )


def scope(order: Order, thread_id: str, run_id: str, cursor: tuple[int, int] | None = None) -> dict[str, object]:
    """The parameters of a page that is read for a run, after a (created_at, seq)."""
    created_at, seq = cursor or START[order]
    return {"the_thread": thread_id, "the_run": run_id, "from_created_at": created_at, "from_seq": seq}


def _in_order(newest_first: bool, *keys: ColumnElement[Any]) -> list[UnaryExpression[Any]]:
    return [key.desc() if newest_first else key.asc() for key in keys]


def _steps_of(run_id: ColumnElement[str]) -> ScalarSelect[Any]:
    """The details of a run's steps, oldest first; null where there are no calls of functions among them.

    A step without any is empty: what the hosted tools of earlier runs have found is large, and not shown again.
    """
    details = case((or_(run_steps.c.type == "message_creation", _calls_lastingly), run_steps.c.step_details))
    nothing = literal(tool_calls([]), JSON)
    in_order = aggregate_order_by(func.coalesce(details, nothing), run_steps.c.created_at, run_steps.c.seq)
    return (
        select(func.json_agg(in_order))
        .where(run_steps.c.run_id == run_id, _told)
        .having(func.bool_or(_calls_lastingly))
        .scalar_subquery()
    )


_message_id = run_steps.c.step_details["message_creation"]["message_id"].as_string()
OWN = (
    select(run_steps.c.step_details.label("details"), *messages.c)
    .outerjoin_from(
        run_steps, messages, and_(run_steps.c.type == "message_creation", messages.c.id == _message_id, _finished)
    )
    .where(run_steps.c.run_id == param("the_run", Text()), _told)
    .order_by(run_steps.c.created_at, run_steps.c.seq)
)
"""The steps of a run in their order, each with its message, if it is one that wrote a message that is finished."""

FIRST = select(func.json_agg(literal_column("first_page")).label("first_page")).select_from(
    page("newest first", FIRST_PAGE).subquery("first_page")
)
"""The first page from the newest message on, as one array of its rows; null where there are no messages."""
