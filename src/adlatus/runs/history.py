"""What the model is shown of a thread: only as much is read as fits.

1. The run's own exchange up to its last outputs, if it has asked the model before: shown in any case.
2. The thread from its newest message on, until all is read or the room is full.
3. Where not all fits, its oldest messages, as many as stay of them.

Tokens are counted by their cheap upper bound until that no longer fits, and exactly from then on.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby, takewhile

from adlatus.backends import tokens
from adlatus.backends.routing import Route
from adlatus.runs import budget, tools
from adlatus.runs.budget import Left, Weight
from adlatus.runs.prompt import Calls, Item, arguments, ends, latest
from adlatus.runs.tools import toolbox
from adlatus.store import history as statements
from adlatus.store.db import Connection, Row
from adlatus.wire.common import Json
from adlatus.wire.messages import Message
from adlatus.wire.runs import Run


class OutOfPromptTokens(Exception):  # noqa: N818
    """What must be shown takes more than what is left of the run's `max_prompt_tokens`."""


@dataclass(frozen=True)
class Shown:
    """What the model is shown, oldest first, and what of it had to be: instructions, tools, the run's own exchange."""

    items: list[Item]
    must: Sequence[Weight]


async def read(
    connection: Connection, run: Run, route: Route, left: Left, *, began: bool, first_page: list[Row] | None = None
) -> Shown:
    """The conversation as far as it fits.

    `left` is what is left of the run's budgets; `began` says whether the run may have asked the model before;
    `first_page` is the first page of the thread if it has been read already. Messages in progress are left out, and so
    are calls without outputs. Raises `OutOfPromptTokens`.
    """
    own = _answered(_blocks(await _own_exchange(connection, run.id))) if began else []
    fixed = [Weight([run.instructions], budget.PER_MESSAGE)] if run.instructions else []
    fixed += [budget.of_schemas(toolbox(run).schemas), budget.of_format(run.response_format)]
    reading = _Reading(
        newest=_End(connection, run, "newest first", first_page),
        oldest=_End(connection, run, "oldest first"),
        model=route.model,
        must=[*fixed, *(block.weight for block in own)],
        room=budget.room(route.context_window, left),
        most_messages=_most_messages(run.truncation_strategy),
    )
    shown = await reading.shown(left.prompt_tokens, newest_stays=not own)
    items = [item for block in (*shown, *own) for item in block.items]
    return Shown([item if isinstance(item, Calls) else Message.of(item) for item in items], reading.must)


def _most_messages(strategy: Json) -> int | None:
    return strategy["last_messages"] if strategy["type"] == "last_messages" else None


# --- What belongs together


@dataclass(slots=True)
class Block:
    """A message, the calls of one turn with their outputs, or both if they are of the same turn."""

    items: list[Row | Calls]
    size: int = 0

    @property
    def messages(self) -> int:
        return sum(not isinstance(item, Calls) for item in self.items)

    @property
    def weight(self) -> Weight:
        weight = Weight(flat=budget.PER_MESSAGE)  # text and calls are one message of the chat
        for item in self.items:
            if isinstance(item, Calls):
                _weigh_calls(item, weight)
            else:
                _weigh_message(item, weight)
        return weight


def _weigh_message(row: Row, weight: Weight) -> None:
    for part in row["content"]:
        if part["type"] == "text":
            weight.texts.append(part["text"]["value"])
        elif part["type"] == "refusal":
            weight.texts.append(part["refusal"])
        elif row["role"] == "user":
            weight.flat += budget.of_image(part[part["type"]].get("detail"))


def _weigh_calls(item: Calls, weight: Weight) -> None:
    weight.flat += budget.PER_MESSAGE * len(item.calls)  # their outputs
    for call in item.calls:
        function = call["function"]
        weight.texts += [function["name"], arguments(function["arguments"]), function["output"]]


def _blocks(items: Iterable[Row | Calls]) -> list[Block]:
    """Items in their order, with the text and the calls of one turn together."""
    blocks: list[Block] = []
    for item in items:
        if isinstance(item, Calls) and item.message_id:
            blocks[-1].items.append(item)
        else:
            blocks.append(Block([item]))
    return blocks


def _items(run_id: str, steps: Iterable[tuple[Json, Row | None]], *, hosted: bool) -> list[Row | Calls]:
    """What a run has said and called, by its steps: their details, and the messages as far as there are any."""
    items: list[Row | Calls] = []
    message_id: str | None = None
    for details, row in steps:
        if row:
            items.append(row)
        else:
            items += _calls(run_id, message_id, details, hosted=hosted)
        message_id = row["id"] if row else None
    return items


def _calls(run_id: str, message_id: str | None, details: Json, *, hosted: bool) -> list[Calls]:
    """The calls of a step that have outputs, as the one item that they are; without searches unless `hosted`."""
    called = [call for call in details.get("tool_calls", ()) if hosted or call["type"] in statements.LASTING]
    calls = tuple(function for call in called if (function := tools.as_function(call)))
    return [Calls(run_id, calls, message_id)] if calls else []


def _of_run(rows: Sequence[Row]) -> list[Row | Calls]:
    """The messages of a run, oldest first, with its calls where its steps have them."""
    steps: list[Json] | None = next((row["steps"] for row in rows if row["steps"]), None)
    if steps is None:
        return list(rows)
    by_id = {row["id"]: row for row in rows}
    messages = (by_id.get(step.get("message_creation", {}).get("message_id")) for step in steps)
    return _items(rows[0]["run_id"], zip(steps, messages, strict=True), hosted=False)


async def _own_exchange(connection: Connection, run_id: str) -> list[Row | Calls]:
    rows = await connection.fetch(statements.OWN, the_run=run_id)
    return _items(run_id, ((row["details"], row if row["id"] else None) for row in rows), hosted=True)


def _answered(own: list[Block]) -> list[Block]:
    """A run's own exchange up to its last outputs. A message after them is of a turn that broke off at its calls.

    The model is asked for that turn again, and several servers refuse a question that ends with an answer.
    """
    unanswered = len(list(takewhile(lambda block: not isinstance(block.items[-1], Calls), reversed(own))))
    return own[: len(own) - unanswered]


# --- Reading


@dataclass
class _End:
    """A thread from one of its ends towards the middle."""

    connection: Connection
    run: Run
    order: statements.Order
    first_page: list[Row] | None = None
    ended: bool = False
    _cursor: tuple[int, int] | None = None
    _held: list[Row] = field(default_factory=list)

    async def more(self, wanted: int) -> list[Block]:
        """The next blocks in the order of reading: about as many messages as wanted. Runs are never cut."""
        if self.first_page is not None:
            page, self.first_page, size = self.first_page, None, statements.FIRST_PAGE
        else:
            size = next((size for size in statements.PAGE_SIZES if size >= wanted), statements.PAGE_SIZES[-1])
            scope = statements.scope(self.order, self.run.thread_id, self.run.id, self._cursor)
            page = await self.connection.fetch(statements.page(self.order, size), **scope)
        self.ended = not page or len(page) == page[0]["found"] < size
        if page:
            self._cursor = (page[-1]["created_at"], page[-1]["seq"])
        rows = self._held + page
        self._held = [] if self.ended else _of_last_run(rows)
        return list(self._blocks(rows[: len(rows) - len(self._held)]))

    def _blocks(self, rows: list[Row]) -> Iterator[Block]:
        newest_first = self.order == "newest first"
        for run_id, group in groupby(rows, key=lambda row: row["run_id"]):
            of_run = list(group)
            if run_id is None:
                yield from (Block([row]) for row in of_run)
                continue
            blocks = _blocks(_of_run(of_run[::-1] if newest_first else of_run))
            yield from reversed(blocks) if newest_first else blocks


def _of_last_run(rows: Sequence[Row]) -> list[Row]:
    """The rows at the end that are of one run, of which there may be more."""
    run_id = rows[-1]["run_id"]
    return [] if run_id is None else list(takewhile(lambda row: row["run_id"] == run_id, reversed(rows)))[::-1]


@dataclass
class _Reading:
    """What has been read so far, newest first, and the room that it leaves."""

    newest: _End
    oldest: _End
    model: str
    must: Sequence[Weight]
    room: int
    most_messages: int | None
    blocks: list[Block] = field(default_factory=list)
    free: int = 0
    exact: bool = False

    async def shown(self, prompt_tokens_left: int | None, *, newest_stays: bool) -> list[Block]:
        """All blocks if they fit, else those that stay; oldest first. Raises `OutOfPromptTokens`."""
        if await self._all_fit():
            return self.blocks[::-1]
        sizes = [block.size for block in self.blocks]
        room = self.free + sum(sizes)
        mandatory = self.room - room + sum(sizes[: int(newest_stays)])
        if prompt_tokens_left is not None and mandatory > prompt_tokens_left:
            raise OutOfPromptTokens
        if self.most_messages is not None:
            return self.blocks[: latest(sizes, room, newest_stays=newest_stays)][::-1]
        first = await self._oldest(room // 4)
        head, tail = ends([block.size for block in first], sizes, room, newest_stays=newest_stays)
        return [*first[:head], *self.blocks[:tail][::-1]]

    async def _all_fit(self) -> bool:
        """Read until all is read that is wanted, or the room is full; an upper bound may do, else count exactly."""
        for self.exact in (False, True):
            read, self.blocks = self.blocks, []
            self.free = self.room - sum(await self._sizes(self.must))
            await self._add(read)
            while (self.free >= 0 or not self.blocks) and not self._whole:
                await self._add(self._wanted(await self.newest.more(self._rows_for(self.free))))
            if self.free >= 0:
                return True
        return False

    @property
    def _whole(self) -> bool:
        return self.newest.ended or self._messages_left == 0

    @property
    def _messages_left(self) -> int | None:
        if self.most_messages is None:
            return None
        return self.most_messages - sum(block.messages for block in self.blocks)

    def _wanted(self, blocks: list[Block]) -> list[Block]:
        """The blocks up to the last message that is wanted."""
        messages_left = self._messages_left
        if messages_left is None:
            return blocks
        before = accumulate((block.messages for block in blocks), initial=0)
        return [block for block, messages in zip(blocks, before, strict=False) if messages < messages_left]

    async def _add(self, blocks: list[Block]) -> None:
        sizes = await self._sizes((block.weight for block in blocks), self.free if self.exact else None)
        for block, size in zip(blocks, sizes, strict=False):  # what comes after the first that does not fit is dropped
            block.size = size
            self.free -= size
            self.blocks.append(block)

    async def _oldest(self, room: int) -> list[Block]:
        blocks: list[Block] = []
        while room > 0 and not self.oldest.ended:
            read = await self.oldest.more(self._rows_for(room))
            for block, size in zip(read, await self._sizes((block.weight for block in read), room), strict=False):
                block.size = size
                room -= size
                blocks.append(block)
        return blocks

    def _rows_for(self, room: int) -> int:
        """How many rows may fill the room, going by those read so far."""
        if not self.blocks:
            first = statements.FIRST_PAGE
            return first if self.most_messages is None else min(self.most_messages, first)
        of_one = sum(block.size for block in self.blocks) / len(self.blocks)
        rows = min(int(room / max(of_one, 1)) + 1, 4 * len(self.blocks))
        return rows if self.most_messages is None else min(rows, self._messages_left or 0)

    async def _sizes(self, weights: Iterable[Weight], room: int | None = None) -> list[int]:
        """The tokens of each; of as many as fit into a room, and of the one that no longer does."""
        if not self.exact:
            return [weight.most() for weight in weights]
        # An encoding may have to be built, and there may be much to count
        return await asyncio.to_thread(_count, self.model, weights, room)


def _count(model: str, weights: Iterable[Weight], room: int | None) -> list[int]:
    counter = tokens.counter(model)
    left = float("inf") if room is None else room
    sizes: list[int] = []
    for weight in weights:
        sizes.append(weight.count(counter, left) if sizes else weight.count(counter))  # the first may stay in any case
        left -= sizes[-1]
        if left < 0:
            break
    return sizes
