"""The rows about the deployment as a whole: P8. Measured before anything else of the benchmark runs."""

from statistics import median

from bench import load
from bench.client import request
from bench.site import Options, adlatus, scratch_folder, settle
from bench.targets import Row

MB = 1_000_000


def idle(options: Options) -> list[Row]:
    """P8: the default deployment with its built-in model, started on a data folder that is there already."""
    starts, idle_bytes, worked_bytes = [], [], []
    with scratch_folder() as folder:
        with adlatus(folder / "data", None) as first:
            first_start_s = first.start_s
        for _ in range(options.repeats):
            with adlatus(folder / "data", None) as server:
                starts.append(server.start_s)
                settle(options.scale * 2)
                idle_bytes.append(server.pss_bytes())
                load.hammer(server.port, [request(server.port, "GET", "/v1/assistants")] * 16, 1)
                settle(options.scale * 2)
                worked_bytes.append(server.pss_bytes())
    memory = {
        "server, MB": median(own / MB for own, _ in idle_bytes),
        "PostgreSQL, MB": median(database / MB for _, database in idle_bytes),
        "after work on 16 connections, MB": median(sum(both) / MB for both in worked_bytes),
    }
    return [
        Row("P8 memory", [sum(both) / MB for both in idle_bytes], details=memory),
        Row("P8 start", starts, details={"on an empty folder, s": first_start_s}),
    ]
