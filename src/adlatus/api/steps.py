"""/v1/threads/{thread_id}/runs/{run_id}/steps"""

from fastapi import Response

from adlatus.api.deps import Db, Include, Paging, Project, RunId, StepId, ThreadId
from adlatus.api.routers import assistants_router, json_response
from adlatus.store import pages, rows
from adlatus.store.tables import run_steps, runs
from adlatus.wire.common import ObjectList, object_list
from adlatus.wire.steps import RunStep

router = assistants_router()


@router.get("/threads/{thread_id}/runs/{run_id}/steps", response_model=ObjectList[RunStep])
async def list_run_steps(
    db: Db, project: Project, thread_id: ThreadId, run_id: RunId, page: Paging, include: Include = ()
) -> Response:
    """List the steps of a run."""
    await rows.get(db, runs, "run", run_id, project_id=project, thread_id=thread_id)
    scope = {"project_id": project, "thread_id": thread_id, "run_id": run_id}
    found, has_more = await pages.read(db, run_steps, "run step", page, **scope)
    return json_response(
        object_list([(row["id"], RunStep.of(row, include).retrieved().json_bytes()) for row in found], has_more)
    )


@router.get("/threads/{thread_id}/runs/{run_id}/steps/{step_id}", response_model=RunStep)
async def retrieve_run_step(
    db: Db, project: Project, thread_id: ThreadId, run_id: RunId, step_id: StepId, include: Include = ()
) -> Response:
    """Retrieve a step of a run."""
    scope = {"project_id": project, "thread_id": thread_id, "run_id": run_id}
    row = await rows.get(db, run_steps, "run step", step_id, **scope)
    return json_response(RunStep.of(row, include).retrieved().json_bytes())
