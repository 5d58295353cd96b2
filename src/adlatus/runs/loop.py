"""The one loop that executes runs, always streaming. Reads top-down: load, ask the model, decide, act."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, assert_never

import structlog

from adlatus.backends.images import ImageError
from adlatus.backends.refusals import ModelError
from adlatus.backends.routing import Route
from adlatus.errors import DatabaseUnavailable, InvalidRequest, Unavailable
from adlatus.files.images import as_data_urls
from adlatus.resources import Resources
from adlatus.runs import budget, history, observing, prompt, tools
from adlatus.runs.budget import Weight
from adlatus.runs.endings import (
    CANCELLED,
    COMPLETED,
    EXPIRED,
    FILTERED,
    OUT_OF_PROMPT_TOKENS,
    OUT_OF_TOKENS,
    Ending,
    failed,
)
from adlatus.runs.journal import Asked, Journal, LeaseLost
from adlatus.runs.lifecycle import IllegalMove
from adlatus.runs.loaded import Loaded
from adlatus.runs.shield import to_the_end
from adlatus.runs.tools import file_search, workspace
from adlatus.runs.turn import NO_FILES, Turn
from adlatus.store.leases import Interruption, Lease
from adlatus.wire.common import NOTHING_USED, Json, LastError
from adlatus.wire.runs import Run, RunStatus

log = structlog.get_logger(__name__)

MAX_ABANDONED = 3
"""Executors that died with a run, after which it fails rather than take a fourth one down."""

OUTAGE_S = 1.0
"""How long to wait before the database is asked again that did not answer."""

LEAST_ROOM = 256
"""Tokens that a tool may tell the model in any case; where they are too many, the run's budget ends it."""

MOST_CALLS = 128
"""Functions that one turn may call: as many as an assistant may have tools."""

SORRY = "Sorry, something went wrong."
"""What the original says of its own faults. *Source*: field reports."""


@dataclass(frozen=True)
class UseTools:
    """The model called hosted tools only: they are carried out, and it is asked again."""


@dataclass(frozen=True)
class AskClient:
    """The model called functions: the run waits until its client has carried them out.

    Hosted tools that it called in the same turn are carried out before that.
    """


@dataclass(frozen=True)
class Finish:
    """The answer is whole: the run is completed."""


@dataclass(frozen=True)
class Stop:
    """The model had to stop: the run is incomplete, the partial text stays."""

    ending: Ending


Last = AskClient | Finish | Stop
"""What ends the work of an executor."""

Decision = UseTools | Last


def decide(turn: Turn) -> Decision:
    """What a turn that has ended means for the run. Pure."""
    match turn.finish_reason:
        case "length":
            return Stop(OUT_OF_TOKENS)
        case "content_filter":
            return Stop(FILTERED)
        case "stop" | None:
            if not turn.calls:
                return Finish()
            return UseTools() if len(turn.hosted) == len(turn.calls) else AskClient()
        case _:
            assert_never(turn.finish_reason)


async def execute(lease: Lease, resources: Resources) -> None:
    """Execute a claimed run until it ends or waits for its client, from whatever state the database has it in.

    1. Load the run and what it has done so far; end at once what is due to end.
    2. Tell what an executor that died left untold; take back the message and the calls that it left half-written.
    3. Before the first question, wait for files of the thread that are being made searchable.
    4. Read as much of the thread as fits, ask the model, and stream its text and its calls as they come.
    5. Decide what the answer means, and act on it: hosted tools are carried out, and 4 follows again.

    Whatever goes wrong becomes the run's ending, except that a lost lease ends silently, that a run is handed back
    when this process stops, and that all of this begins anew when the database does not answer for a while. What has
    come to an end by then, an answer or the calls of a turn, is kept and written once it does.
    """
    resources.events.execute(lease.run_id, lease.attempt)
    try:
        async with observing.executing(lease, resources):
            while not await _executed(lease, resources):  # noqa: ASYNC110 - a database that is back sets no event
                await asyncio.sleep(OUTAGE_S)
    finally:
        resources.events.leave(lease.run_id, lease.attempt)


async def _executed(lease: Lease, resources: Resources) -> bool:
    """Execute the run, unless the database stops answering meanwhile; whether it did not."""
    journal = Journal(lease, resources.database, resources.events)
    try:
        if ending := await _to_an_ending(lease, _attempt(lease, resources, journal)):
            if any(map(any, _output(journal.turn))):  # of an answer that was broken off nobody tells what it took
                ending = await _to_an_ending(lease, _account(journal, resources)) or ending
            ending = await _end(journal, ending)
            observing.ended(lease, resources, ending)
            log.info("run ended", status=str(ending.status), error=ending.error and ending.error.code)
        else:
            log.info("run waits for its client", calls=len(journal.turn.calls))
    except LeaseLost:
        log.warning("run was taken over or deleted, nothing more is written")
    except IllegalMove as error:
        log.info("run had ended already", status=str(error.current))
    except DatabaseUnavailable:
        lease.claimed = lease.first_page = None  # they are not as they were then
        log.warning("the run begins anew once the database answers, unless another process has taken it over by then")
        return False
    return True


async def _end(journal: Journal, ending: Ending) -> Ending:
    """End the run: as cancelled where a cancel has come first that `ending` may not follow."""
    try:
        await journal.end(ending)
    except IllegalMove as error:
        if error.current is not RunStatus.CANCELLING:
            raise
        ending = CANCELLED
        await journal.end(ending)
    return ending


async def _to_an_ending(lease: Lease, work: Coroutine[Any, Any, Ending | None]) -> Ending | None:
    """The ending that the run has earned by this work; None where there is none."""
    try:
        return await work
    except ModelError as error:
        log.warning("the model gave no answer", error=str(error))
        return failed(LastError(code=error.code, message=error.message))
    except tools.ToolFailed as error:
        log.warning("a tool failed", error=str(error.__cause__ or error))
        return failed(error.error)
    except (prompt.RefusedImage, ImageError, InvalidRequest) as error:  # such as a model that is routed no longer
        return failed(LastError(code="invalid_prompt", message=str(error)))
    except IllegalMove as error:
        if error.current is RunStatus.CANCELLING:
            return CANCELLED
        raise
    except asyncio.CancelledError:
        if lease.interruption is Interruption.CANCEL:
            return CANCELLED
        if lease.interruption is Interruption.LOST:
            raise LeaseLost from None
        raise
    except (LeaseLost, DatabaseUnavailable):
        raise
    except Unavailable as error:  # the storage of files, which has been asked several times by now
        return failed(LastError(code="server_error", message=error.message))
    except Exception:
        log.exception("run failed")
        return failed(LastError(code="server_error", message=SORRY))


async def _attempt(lease: Lease, resources: Resources, journal: Journal) -> Ending | None:
    loaded = await journal.load(lease.claimed)
    run = loaded.run
    if lease.abandoned:
        await journal.make_up()
    if loaded.began and run.status is not RunStatus.QUEUED:
        await journal.take_back()
    if run.status is RunStatus.CANCELLING:
        return CANCELLED
    if loaded.left_s <= 0:
        return EXPIRED
    if lease.abandoned >= MAX_ABANDONED:
        log.error("run took too many executors down", abandoned=lease.abandoned)
        return failed(LastError(code="server_error", message=SORRY))
    try:
        async with asyncio.timeout(loaded.left_s) as deadline:
            if run.status is RunStatus.QUEUED:
                await journal.begin()
            last = await _converse(loaded, resources, journal)
    except TimeoutError:
        if not deadline.expired():
            raise
        return EXPIRED
    match last:
        case AskClient():
            await journal.ask_client()
            return None
        case Finish():
            return COMPLETED
        case Stop(ending):
            return ending


async def _converse(loaded: Loaded, resources: Resources, journal: Journal) -> Last:
    """Ask the model, and again for as long as it calls hosted tools only."""
    if tools.toolbox(loaded.run).searches and not loaded.steps:
        await file_search.settled(resources, journal.project_id, journal.thread_id)
    while True:
        asked = await _ask(loaded, resources, journal)
        if isinstance(asked, Stop):
            return asked
        match decision := decide(journal.turn):
            case UseTools():
                await _use_tools(loaded, asked, resources, journal)
                await journal.complete_calls()
                loaded = await journal.load()
            case AskClient():
                await _use_tools(loaded, asked, resources, journal)
                return decision
            case Finish() | Stop():
                return decision


@dataclass(frozen=True)
class Question:
    """What the model was asked."""

    route: Route
    must: Sequence[Weight]
    chat_messages: int


async def _ask(loaded: Loaded, resources: Resources, journal: Journal) -> Question | Stop:
    """Stream one answer of the model into the journal's turn and to the readers.

    Does nothing and stops where the run's budget does not allow another question.
    """
    left = budget.left(loaded.run, loaded.used)
    if left.completion_tokens == 0:
        return Stop(OUT_OF_TOKENS)
    run, made = await _with_files(loaded, resources, journal)
    if tools.rounds(run, [step["step_details"] for step in loaded.steps]) >= tools.MOST_ROUNDS:
        run = run.model_copy(update={"tool_choice": "none"})
    route = resources.llm.routing.for_assistants(run.model)
    try:
        first_page, journal.lease.first_page = journal.lease.first_page, None
        shown = await history.read(resources.database, run, route, left, began=loaded.began, first_page=first_page)
    except history.OutOfPromptTokens:
        return Stop(OUT_OF_PROMPT_TOKENS)
    items = shown.items
    fetched = await resources.images.fetch(prompt.links(items, route))
    files = await as_data_urls(resources, journal.project_id, prompt.image_files(items, route))
    request = prompt.build(run, items, route, left, {**fetched, **files})
    journal.turn = Turn(
        most_calls=_most_calls(run, request),
        taken_ids={call["id"] for call in loaded.calls} | _call_ids(items),
        toolbox=tools.toolbox(run),
        passages=tools.passages(loaded.calls),
        files=made,
        images=loaded.new_images,
    )
    journal.asked = Asked(route.model, request)
    first_of = None if loaded.began else journal.lease
    with observing.Asking(resources, route, request, journal.turn, first_of=first_of) as asking:
        await _listen(resources, route, request, journal, asking)
    await _account(journal, resources)
    return Question(route, shown.must, sum(message["role"] != "system" for message in request["messages"]))


async def _with_files(loaded: Loaded, resources: Resources, journal: Journal) -> tuple[Run, Mapping[str, str]]:
    """The run as the model is told of it, with the files that code can work with; those that code has written."""
    run = loaded.run
    if not tools.toolbox(run).executes_code:
        return run, NO_FILES
    given = await workspace.given(resources, journal.project_id, journal.thread_id, loaded.code_file_ids)
    if given:
        instructions = "\n\n".join(filter(None, (run.instructions, workspace.told(given))))
        run = run.model_copy(update={"instructions": instructions})
    return run, (await workspace.earlier(resources.database, journal.thread_id)).made


async def _use_tools(loaded: Loaded, asked: Question, resources: Resources, journal: Journal) -> None:
    """Carry out the calls of the turn that are for hosted tools, if there are any."""
    turn, route = journal.turn, asked.route
    calls = [(place, turn.calls[place], tool) for place, tool in turn.hosted.items()]
    if not calls:
        return
    used = loaded.used + (turn.usage or NOTHING_USED)
    window_left = budget.room(route.context_window, budget.left(loaded.run, used))
    must = await asyncio.to_thread(budget.total, asked.must, route.model)
    work = tools.Work(
        resources,
        journal.project_id,
        journal.thread_id,
        loaded.vector_store_ids,
        loaded.code_file_ids,
        model=route.model,
        window=route.context_window or budget.DEFAULT_WINDOW,
        # Half of what may be had besides: the thread wants some, too, and another search may follow
        room_tokens=max((window_left - must) // 2 // len(calls), LEAST_ROOM),
        position=tools.position(asked.chat_messages, loaded.calls),
        carried_out=journal.carried_out,
        say_output=journal.say_output,
    )
    await tools.carry_out(work, calls)


async def _listen(
    resources: Resources, route: Route, request: Json, journal: Journal, asking: observing.Asking
) -> None:
    turn = journal.turn
    async with aclosing(resources.llm.stream(route, request)) as answer:
        async for chunks in answer:
            if new := turn.fold(chunks):
                if asking.heard:
                    await journal.say(new)
                else:
                    asking.hears(chunks)
                    await journal.say(new)
                    asking.tells()
    await journal.say(turn.finish())
    journal.hear_out()


async def _account(journal: Journal, resources: Resources) -> None:
    """What the turn has used, counted here where the endpoint has not told it; to the end even of a run that ends."""
    await to_the_end(_count(journal, resources))


async def _count(journal: Journal, resources: Resources) -> None:
    turn, asked = journal.turn, journal.asked
    if asked is None:
        return
    if turn.usage is None:
        turn.usage = await asyncio.to_thread(budget.counted, asked.model, asked.request, *_output(turn))
    journal.asked = None
    prompt_tokens, completion_tokens = resources.metrics.tokens_of(resources.llm.routing.label(asked.model))
    prompt_tokens.inc(turn.usage.prompt_tokens)
    completion_tokens.inc(turn.usage.completion_tokens)
    await resources.rates.spend(journal.project_id, turn.usage.total_tokens)


def _output(turn: Turn) -> tuple[list[str], list[str]]:
    """What the model wrote in a turn, and what of it is not shown."""
    called = [text for call in turn.calls for text in (call.name, call.arguments)]
    return [turn.text, turn.refusal, *called], [turn.hidden]


def _call_ids(items: Sequence[prompt.Item]) -> set[str]:
    """The ids of calls that the model is shown: one that always says the same would not know them apart."""
    return {call["id"] for item in items if isinstance(item, prompt.Calls) for call in item.calls}


def _most_calls(run: Run, request: Json) -> int:
    """How many functions the model may call in one turn: none that it was not offered, whatever it does."""
    if "tools" not in request:
        return 0
    return MOST_CALLS if run.parallel_tool_calls else 1
