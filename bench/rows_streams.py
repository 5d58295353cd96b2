"""The rows about streamed runs: P1 to P5, P13. The floor is the raw relay, asked for the same of the same model."""

import asyncio
import time
from dataclasses import dataclass
from statistics import median
from typing import Final

from bench import load
from bench.load import Streams
from bench.processes import Server
from bench.site import Site, adlatus, embedded_dsn, interleaved, settle
from bench.targets import Row, percentile

RUN: Final = 20
"""Deltas of an ordinary short run."""
BURST: Final = 2_000
"""Deltas of a stream that comes as fast as it can."""
PACE: Final = "[[pace: 0.02]]"
"""50 tokens per second."""


def first_delta(site: Site) -> list[Row]:
    """P1: one client asks the model, the relay and the server in turns."""
    count = site.scaled(100)
    text = f"[[tokens: {RUN}]]"

    def samples() -> list[float]:
        return [
            1000 * median(seconds)
            for seconds in site.load(
                load.first_deltas,
                [
                    (site.model.port, load.CHUNK, site.chat_requests(site.model, count, text)),
                    (site.relay.port, load.DELTA, site.chat_requests(site.relay, count, text)),
                    (site.server.port, load.DELTA, site.run_requests(count, text)),
                ],
            )
        ]

    [rounds] = interleaved(site.options.repeats, samples)
    values = [server - model for model, _, server in rounds]
    floors = [relay - model for model, relay, _ in rounds]
    own = {"the model's own, ms": median(model for model, _, _ in rounds)}
    return [_row("P1", values, floors, own)]


def runs_per_second(site: Site) -> list[Row]:
    """P2: 16 clients, each starting the next run when its last one has ended."""
    text = f"[[tokens: {RUN}]]"
    rates, floors = _rates(site, text, RUN, on_server=site.scaled(480), on_floor=site.scaled(4_800))
    return [_row("P2", [rate / RUN for rate in rates], [rate / RUN for rate in floors])]


def burst(site: Site) -> list[Row]:
    """P3: long answers that the model sends at once."""
    text = f"[[tokens: {BURST}]]"
    rates, floors = _rates(site, text, BURST, on_server=site.scaled(64), on_floor=site.scaled(256))
    return [_row("P3", rates, floors)]


def cpu_per_delta(site: Site) -> list[Row]:
    """P4: CPU of the process over whole runs, so that each delta carries its share of their beginning and end."""
    count = site.scaled(300)

    def paced(server: Server) -> _Paced:
        return _paced(site, server, streams=60, deltas=count)

    relay, server = interleaved(site.options.repeats, lambda: paced(site.relay), lambda: paced(site.server))
    details = {
        "in the middle of the runs, µs": median(one.steady_us for one in server),
        "in the middle of the runs, floor, µs": median(one.steady_us for one in relay),
        "with the database's processes, µs": median(one.family_us for one in server),
        "deltas of a run": count,
    }
    return [_row("P4", [one.whole_us for one in server], [one.whole_us for one in relay], details)]


def gaps(site: Site) -> list[Row]:
    """P5: many streams at reading pace; the gap that one delta in a hundred exceeds, once all streams have begun."""
    count = max(150, site.scaled(300))

    def paced(server: Server) -> Streams:
        return _paced(site, server, streams=200, deltas=count).streams

    relay, server = interleaved(site.options.repeats, lambda: paced(site.relay), lambda: paced(site.server))
    values, floors = ([1000 * percentile(streams.gaps(), 0.99) for streams in each] for each in (server, relay))
    details = {
        "p50, ms": median(1000 * percentile(streams.gaps(), 0.5) for streams in server),
        "deltas measured": median(len(streams.gaps()) for streams in server),
        "until all have begun, s": median(_ramp_s(streams) for streams in server),
        "until all have begun, floor, s": median(_ramp_s(streams) for streams in relay),
    }
    return [_row("P5", values, floors, details)]


def lag(site: Site) -> list[Row]:
    """P13: readers of runs that execute in another process, at reading pace."""
    database_url = site.options.database_url or asyncio.run(embedded_dsn(site.folder / "main"))
    count = site.scaled(300)
    with adlatus(site.folder / "other", site.model, database_url) as other:

        def lags() -> float:
            requests = site.run_requests(20, f"[[tokens: {count}]]{PACE}")
            return 1000 * percentile(site.load(load.lags, site.server.port, requests, other.port), 0.99)

        [values] = interleaved(site.options.repeats, lags)
    return [Row("P13", values)]


@dataclass(frozen=True)
class _Paced:
    """Paced streams and the CPU that they cost: µs per delta."""

    streams: Streams
    whole_us: float
    steady_us: float
    family_us: float


def _paced(site: Site, server: Server, *, streams: int, deltas: int) -> _Paced:
    """All streams at once, each at 50 tokens per second. The middle half of the time is the steady part."""
    text = f"[[tokens: {deltas}]]{PACE}"
    requests = site.chat_requests(server, streams, text) if server is site.relay else site.run_requests(streams, text)
    settle()
    before, family_before = server.cpu_s(), server.cpu_s(family=True)
    job = site.begin(load.stream, server.port, requests, streams, deltas)
    length_s = deltas * 0.02
    time.sleep(length_s * 0.3)
    start, cpu_at_start = time.perf_counter(), server.cpu_s()
    time.sleep(length_s * 0.5)
    end, cpu_at_end = time.perf_counter(), server.cpu_s()
    done = job.get()
    settle()
    used, used_by_family = server.cpu_s() - before, server.cpu_s(family=True) - family_before
    return _Paced(
        done,
        whole_us=1e6 * used / done.deltas,
        steady_us=1e6 * (cpu_at_end - cpu_at_start) / max(1, done.between(start, end)),
        family_us=1e6 * used_by_family / done.deltas,
    )


def _rates(site: Site, text: str, deltas: int, *, on_server: int, on_floor: int) -> tuple[list[float], list[float]]:
    """Deltas per second of 16 clients on the server, and on the relay floor, which gets more of them to be as long."""

    def relay() -> float:
        requests = site.chat_requests(site.relay, on_floor, text)
        return _rate(site.load(load.stream, site.relay.port, requests, 16, deltas))

    def server() -> float:
        requests = site.run_requests(on_server, text)
        settle()
        return _rate(site.load(load.stream, site.server.port, requests, 16, deltas))

    floors, rates = interleaved(site.options.repeats, relay, server)
    return rates, floors


def _ramp_s(streams: Streams) -> float:
    """Seconds from the first delta of all to the last stream's first."""
    first = [stream[0][0] for stream in streams.arrivals]
    return max(first) - min(first)


def _rate(streams: Streams) -> float:
    return streams.deltas / streams.elapsed_s


def _row(name: str, values: list[float], floors: list[float], details: dict[str, float] | None = None) -> Row:
    ratios = [value / floor for value, floor in zip(values, floors, strict=True)]
    return Row(name, values, floors, ratios, details or {})
