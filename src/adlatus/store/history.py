"""The statements that read a thread for its next run: page by page, from either end.

A page is of messages. The function calls of a run come with the first of its messages in the page, so that the
usual thread is one round trip.
"""

from functools import cache
from typing import Any, Literal

from sqlalchemy import BigInteger, Select, Text, and_, case, func, literal_column, or_, select, tuple_
from sqlalchemy.dialects.postgresql import aggregate_order_by

from adlatus.store.db import param
from adlatus.store.tables import messages, run_steps
from adlatus.wire.messages import MessageStatus
from adlatus.wire.steps import StepStatus

Order = Literal["newest first", "oldest first"]

PAGE_SIZES = tuple(2**power for power in range(4, 13))
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
    them. The size is part of the text: not knowing it, PostgreSQL thinks of a tenth of the table, and compiles.
    """
    newest_first = order == "newest first"
    position = tuple_(messages.c.created_at, messages.c.seq)
    cursor = tuple_(param("from_created_at", BigInteger()), param("from_seq", BigInteger()))
    keys = [key.desc() if newest_first else key.asc() for key in (messages.c.created_at, messages.c.seq)]
    found = (
        select(messages)
        .where(
            messages.c.thread_id == param("the_thread", Text()),
            position < cursor if newest_first else position > cursor,
            _finished,
            messages.c.run_id.is_distinct_from(param("the_run", Text())),
        )
        .order_by(*keys)
        .limit(literal_column(str(size)))
        .subquery("page")
    )
    keys = [key.desc() if newest_first else key.asc() for key in (found.c.created_at, found.c.seq)]
    is_first = func.lag(found.c.run_id).over(order_by=keys).is_distinct_from(found.c.run_id)
    steps = (
        select(func.json_agg(aggregate_order_by(run_steps.c.step_details, run_steps.c.created_at, run_steps.c.seq)))
        .where(run_steps.c.run_id == found.c.run_id, _told)
        .having(func.bool_or(run_steps.c.type == "tool_calls"))
        .scalar_subquery()
    )
    return select(found, case((and_(found.c.run_id.is_not(None), is_first), steps)).label("steps")).order_by(*keys)


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
