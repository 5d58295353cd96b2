"""/healthz, /readyz, /metrics: what an operator asks. Details need a key where keys are configured."""

from fastapi import APIRouter, Request, Response

from adlatus.api.callers import project_of, secret_in
from adlatus.api.deps import Opened
from adlatus.errors import Unauthorized, Unavailable
from adlatus.measuring import Gauges
from adlatus.probing import Probes, Readiness
from adlatus.resources import Resources
from adlatus.wire.events import compact

router = APIRouter(include_in_schema=False)

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@router.api_route("/healthz", methods=["GET", "HEAD"])
async def healthz() -> Response:
    """The process serves requests."""
    return Response(compact({"status": "ok"}), media_type="application/json")


@router.api_route("/readyz", methods=["GET", "HEAD"])
async def readyz(request: Request, opened: Opened) -> Response:
    """Whether requests can be answered: 200 or 503, for those with a key with the state of each component."""
    probes: Probes = request.app.state.probes
    try:
        await project_of(opened, secret_in(request.headers))
    except (Unauthorized, Unavailable):  # no key that is known here
        return ready_response(await probes.needed(), None)  # what a load balancer needs
    return ready_response(await probes.all(), opened)


@router.get("/metrics")
async def metrics(request: Request, opened: Opened) -> Response:
    """Prometheus' text format."""
    await project_of(opened, secret_in(request.headers))
    gauges: Gauges = request.app.state.gauges
    return Response(await gauges.render(), media_type=METRICS_TYPE)


def ready_response(readiness: Readiness, opened: Resources | None) -> Response:
    """The answer of /readyz, with details where `opened` is given."""
    shown: dict[str, object] = {"status": "ok" if readiness.ready else "unavailable"}
    if opened:
        shown["components"], shown["models"] = readiness.components, readiness.models
        shown["uses"] = {name: what for name, what, _ in opened.report}
    return Response(compact(shown), status_code=200 if readiness.ready else 503, media_type="application/json")
