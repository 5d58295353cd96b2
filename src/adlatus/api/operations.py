"""/healthz, /readyz, /metrics: what an operator asks. Details need a key where keys are configured."""

import asyncio
from collections.abc import Awaitable

from fastapi import APIRouter, Request, Response
from sqlalchemy import literal, select

from adlatus.api.deps import Opened, authenticate
from adlatus.errors import ApiError, Unauthorized, Unavailable
from adlatus.wire.events import compact

router = APIRouter()
_ONE = select(literal(1))


@router.api_route("/healthz", methods=["GET", "HEAD"])
async def healthz() -> Response:
    """The process serves requests."""
    return Response(compact({"status": "ok"}), media_type="application/json")


@router.api_route("/readyz", methods=["GET", "HEAD"])
async def readyz(request: Request, opened: Opened) -> Response:
    """Whether requests can be answered: 200 or 503, for those with a key with the state of each component."""
    components = {
        "database": await _state(opened.database.fetch(_ONE)),
        "storage": await _state(opened.blobs.glance()),
    }
    if worker := request.app.state.worker:
        components["executor"] = "ok" if worker.alive else "no heartbeat for longer than a lease"
    ready = all(state == "ok" for state in components.values())
    components["index"] = await _state(opened.index.ping())  # most requests are answered without it
    if opened.code and (opened.code.sandboxes or opened.settings.sandbox in ("docker", "bubblewrap")):
        components["code"] = opened.code.problem or "ok"
    shown: dict[str, object] = {"status": "ok" if ready else "unavailable"}
    try:
        authenticate(opened, request.headers.get("authorization"))
        shown["components"] = components
        shown["uses"] = {name: what for name, what, _ in opened.report}
    except Unauthorized:
        pass  # who has no key learns no more than a load balancer needs
    return Response(compact(shown), status_code=200 if ready else 503, media_type="application/json")


@router.get("/metrics")
async def metrics(request: Request, opened: Opened) -> Response:
    """Prometheus' text format."""
    authenticate(opened, request.headers.get("authorization"))
    return Response(opened.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _state(asked: Awaitable[object]) -> str:
    """What there is to say of a component that has been asked something."""
    try:
        async with asyncio.timeout(2):
            await asked
    except (Unavailable, TimeoutError):
        return "does not answer"
    except ApiError as error:
        return error.message
    return "ok"
