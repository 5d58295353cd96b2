"""Options, the rows in their order, the table and the JSON file."""

import argparse
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil

from adlatus.errors import StartupError, Unavailable
from bench import rows_deployment, rows_requests, rows_sandbox, rows_streams, rows_vectors
from bench.site import Options, Site, busy_share, open_site
from bench.targets import Row

ALONE: dict[str, Callable[[Options], list[Row]]] = {
    "P8": rows_deployment.idle,
    "P9": rows_vectors.search,
    "P10": rows_sandbox.first_and_next,
}
"""Measured before anything else of the benchmark runs."""
MEASURES: dict[str, Callable[[Site], list[Row]]] = {
    "P1": rows_streams.first_delta,
    "P2": rows_streams.runs_per_second,
    "P3": rows_streams.burst,
    "P4": rows_streams.cpu_per_delta,
    "P5": rows_streams.gaps,
    "P6": rows_requests.retrieve_and_create,
    "P7": rows_requests.beside_others,
    "P11": rows_requests.write_tail,
    "P12": rows_requests.read_beside_streams,
    "P13": rows_streams.lag,
}
ALL = sorted({*ALONE, *MEASURES}, key=lambda name: int(name[1:]))


def main() -> None:
    """Measure, print, write."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    if (busy := busy_share()) > 0.3:
        print(f"The machine is busy with other work (load {busy:.1f} per core): expect worse numbers.", file=sys.stderr)
    options = Options(
        repeats=arguments.repeats,
        scale=0.25 if arguments.quick else 1.0,
        other_messages=arguments.other_messages,
        database_url=arguments.database_url,
    )
    begun = time.monotonic()
    failed: dict[str, str] = {}
    rows = sorted(_measured(options, arguments.only, failed), key=lambda row: ALL.index(row.name.split()[0]))
    print(_table(rows, arguments.only, failed))
    took_s = round(time.monotonic() - begun)
    print(f"\nMedians of {options.repeats} repeats, {took_s} s. Every repeat: {arguments.json}")
    written = {
        "repeats": options.repeats,
        "database": "external" if options.database_url else "embedded",
        "scale": options.scale,
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "python": sys.version.split()[0],
        "rows": [row.as_json() for row in rows],
        "failed": failed,
    }
    arguments.json.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n")
    sys.exit(1 if failed else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Adlatus against its floors.")
    parser.add_argument("--only", type=_names, default=ALL, metavar="P2,P6", help="only these rows")
    parser.add_argument(
        "--quick", action="store_true", help="to see that it runs: shorter, 2 repeats, 20,000 other messages"
    )
    parser.add_argument("--repeats", type=int, help="repeats of each measurement (3)")
    parser.add_argument("--other-messages", type=int, help="messages of other threads in P7 (1,000,000)")
    parser.add_argument("--database-url", help="an empty PostgreSQL database for the server, but for P7 and P8")
    parser.add_argument("--json", type=Path, default=Path("bench-results.json"), help="where every number goes")
    arguments = parser.parse_args()
    if arguments.repeats is None:
        arguments.repeats = 2 if arguments.quick else 3
    if arguments.other_messages is None:
        arguments.other_messages = 20_000 if arguments.quick else 1_000_000
    return arguments


def _names(value: str) -> list[str]:
    names = [name.strip().upper() for name in value.split(",")]
    if unknown := set(names) - set(ALL):
        raise argparse.ArgumentTypeError(f"no such rows: {', '.join(sorted(unknown))}")
    return names


def _measured(options: Options, only: list[str], failed: dict[str, str]) -> Iterator[Row]:
    """The rows, one after the other; why others could not be measured goes to `failed`."""
    for name in [name for name in ALONE if name in only]:
        yield from _told(name, partial(ALONE[name], options), failed)
    if wanted := [name for name in MEASURES if name in only]:
        with open_site(options) as site:
            for name in wanted:
                yield from _told(name, partial(MEASURES[name], site), failed)


def _told(name: str, measure: Callable[[], list[Row]], failed: dict[str, str]) -> list[Row]:
    """Measure, and tell whoever waits for it how long that took, or that a server did not bear it."""
    begun = time.monotonic()
    try:
        rows = measure()
    except (OSError, RuntimeError, ExceptionGroup, multiprocessing.TimeoutError, StartupError, Unavailable) as error:
        failed[name] = str(error) or type(error).__name__
        print(f"{name}: {error!r}", file=sys.stderr)
        return []
    print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return rows


def _table(rows: list[Row], only: list[str], failed: dict[str, str]) -> str:
    lines = [("row", "what", "value", "", "floor", "ratio", "range", "target", "holds")]
    for row in rows:
        shown = row.as_json()
        target = row.target
        judged = row.ratios or row.values
        verdict = "stretch" if shown["holds_stretch"] else "yes" if shown["holds"] else "NO"
        limit = f"{'≤' if target.bound == '<=' else '≥'} {target.limit:g}" + (" ×" if target.judged == "ratio" else "")
        numbers = (_number(shown["value"]), target.unit, _number(shown["floor"]), _number(shown["ratio"]))
        spread = f"{_number(min(judged))}–{_number(max(judged))}"
        lines.append((row.name, target.what, *numbers, spread, limit, verdict))
    lines += [(name, reason[:100], "", "", "", "", "", "", "NO") for name, reason in failed.items()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    details = [f"  {row.name}: {name} = {_number(number)}" for row in rows for name, number in row.details.items()]
    return "\n".join([*table, "", *details])


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
