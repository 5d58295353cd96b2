"""/v1/threads/{thread_id}/runs, /v1/threads/runs"""

import asyncio
from functools import partial

from fastapi import Response

from adlatus.api import sse
from adlatus.api.deps import (
    TOKENS_LEFT,
    AfterEvent,
    Db,
    Include,
    Opened,
    Paging,
    Project,
    ReplacesActive,
    RunId,
    ThreadId,
    WorkerHere,
)
from adlatus.api.routers import assistants_router, json_response
from adlatus.runs import commands
from adlatus.store import rows, threads
from adlatus.store.tables import runs
from adlatus.wire.common import ObjectList, object_list
from adlatus.wire.runs import (
    CreateRunRequest,
    CreateThreadAndRunRequest,
    ModifyRunRequest,
    Run,
    SubmitToolOutputsRequest,
)

router = assistants_router()


# Before /threads/{thread_id}, or "runs" would be taken for a thread
@router.post("/threads/runs", response_model=Run, responses=sse.STREAMED, dependencies=TOKENS_LEFT)
async def create_thread_and_run(
    opened: Opened, project: Project, worker: WorkerHere, body: CreateThreadAndRunRequest
) -> Response:
    """Create a thread and a run on it."""
    queued = await commands.create_thread_and_run(
        opened.database,
        opened.events,
        opened.llm.routing,
        project,
        body,
        expires_after_s=opened.settings.run_expires_after_s,
        most_active=opened.access.limits(project).active_runs,
        claim=worker.offer() if worker else None,
    )
    return await _started(opened, worker, queued, stream=body.stream)


@router.post("/threads/{thread_id}/runs", response_model=Run, responses=sse.STREAMED, dependencies=TOKENS_LEFT)
async def create_run(
    opened: Opened,
    project: Project,
    worker: WorkerHere,
    thread_id: ThreadId,
    body: CreateRunRequest,
    replace: ReplacesActive = None,
    include: Include = (),
) -> Response:
    """Create a run on a thread. The extension `adlatus-on-active-run: replace` cancels an active one first."""
    while True:
        try:
            queued = await commands.create(
                opened.database,
                opened.events,
                opened.llm.routing,
                project,
                thread_id,
                body,
                include=include,
                expires_after_s=opened.settings.run_expires_after_s,
                most_active=opened.access.limits(project).active_runs,
                claim=worker.offer() if worker else None,
                seen=opened.seen,
            )
            break
        except commands.ActiveRun as refused:
            if not replace:
                raise
            await commands.clear(opened.database, opened.events, project, refused, thread_id)
    return await _started(opened, worker, queued, stream=body.stream)


@router.get("/threads/{thread_id}/runs", response_model=ObjectList[Run])
async def list_runs(db: Db, project: Project, thread_id: ThreadId, page: Paging) -> Response:
    """List the runs of a thread."""
    found, has_more = await threads.page(db, runs, "run", page, project_id=project, thread_id=thread_id)
    return json_response(object_list([(row["id"], Run.of(row).json_bytes()) for row in found], has_more))


@router.get("/threads/{thread_id}/runs/{run_id}", response_model=Run)
async def retrieve_run(db: Db, project: Project, thread_id: ThreadId, run_id: RunId) -> Response:
    """Retrieve a run. The SDK's polling helpers are told to come back soon."""
    row = await rows.get(db, runs, "run", run_id, project_id=project, thread_id=thread_id)
    response = json_response(Run.of(row).json_bytes())
    response.headers["openai-poll-after-ms"] = "100"
    return response


@router.get("/threads/{thread_id}/runs/{run_id}/events", response_class=sse.EventStream, responses=sse.FOLLOWED)
async def follow_run(
    opened: Opened, project: Project, thread_id: ThreadId, run_id: RunId, after: AfterEvent
) -> Response:
    """Follow the events of a run from a number on, up to the next end of its stream."""
    await rows.get(opened.database, runs, "run", run_id, project_id=project, thread_id=thread_id)
    return sse.EventStream(partial(opened.events.follow, run_id, after))


@router.post("/threads/{thread_id}/runs/{run_id}", response_model=Run)
async def modify_run(db: Db, project: Project, thread_id: ThreadId, run_id: RunId, body: ModifyRunRequest) -> Response:
    """Replace the metadata of a run."""
    changes = {"metadata": body.metadata or {}} if "metadata" in body.model_fields_set else {}
    row = await rows.modify(db, runs, "run", run_id, changes, project_id=project, thread_id=thread_id)
    return json_response(Run.of(row).json_bytes())


@router.post("/threads/{thread_id}/runs/{run_id}/cancel", response_model=Run)
async def cancel_run(opened: Opened, project: Project, thread_id: ThreadId, run_id: RunId) -> Response:
    """Cancel a run."""
    run = await commands.cancel(opened.database, opened.events, project, thread_id, run_id, metrics=opened.metrics)
    return json_response(run.json_bytes())


@router.post("/threads/{thread_id}/runs/{run_id}/submit_tool_outputs", response_model=Run, responses=sse.STREAMED)
async def submit_tool_outputs(
    opened: Opened,
    project: Project,
    worker: WorkerHere,
    thread_id: ThreadId,
    run_id: RunId,
    body: SubmitToolOutputsRequest,
) -> Response:
    """Give a run the outputs of the function calls that it waits for, all at once."""
    queued = await commands.submit_tool_outputs(
        opened.database,
        opened.events,
        project,
        thread_id,
        run_id,
        body.tool_outputs,
        claim=worker.offer() if worker else None,
    )
    return await _started(opened, worker, queued, stream=body.stream)


async def _started(opened: Opened, worker: WorkerHere, queued: commands.Queued, *, stream: bool | None) -> Response:
    """Execute the run here if it was claimed here, and answer with its object or its stream."""
    if queued.lease and worker:
        worker.start(queued.lease)
        await asyncio.sleep(0)  # so that the database reads the thread while this answer begins
    if stream:
        return sse.EventStream(partial(opened.events.follow, queued.run.id, queued.after))
    return json_response(queued.run.json_bytes())
