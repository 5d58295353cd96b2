"""The row about the code interpreter: P10, for each engine that this machine has, at the level of the pool."""

import asyncio
import sys
import time
import uuid
from contextlib import aclosing
from statistics import median

from adlatus.backends.sandbox.engine import SandboxUnavailableError
from adlatus.backends.sandbox.events import Done, Result
from adlatus.backends.sandbox.picking import pick_engine
from adlatus.backends.sandbox.pool import Limits, Sandboxes, keep
from adlatus.settings import Settings
from bench.site import Options
from bench.targets import Row, percentile

ENGINES = ("docker", "bubblewrap")
THREADS, CALLS = 4, 40
WARM_S = 120


def first_and_next(options: Options) -> list[Row]:
    """P10: `1 + 1` in a thread that gets its sandbox from the warm pool, and again in the same thread."""
    rows = []
    for engine in ENGINES:
        try:
            rows += asyncio.run(_measure(engine, options))
        except SandboxUnavailableError as error:
            print(f"P10 without {engine}: {error}", file=sys.stderr)
    if not rows:
        raise RuntimeError("there is no engine for sandboxes")
    return rows


async def _measure(name: str, options: Options) -> list[Row]:
    engine = await pick_engine(Settings(sandbox=name), f"bench-{uuid.uuid4().hex[:12]}")
    firsts, nexts, whole, colds = [], [], [], []
    async with keep(engine, Limits(warm=1)) as sandboxes:
        for repeat in range(options.repeats):
            first, after = [], []
            for number in range(THREADS):
                thread = f"{repeat}-{number}"
                await _until_warm(sandboxes)
                first.append((await _call(sandboxes, thread))[0])
                await _until_warm(sandboxes)
                after += [await _call(sandboxes, thread) for _ in range(CALLS)]
                await sandboxes.discard(thread)
            firsts.append(1000 * median(first))
            nexts.append(1000 * median(above for above, _ in after))
            whole.append(1000 * median(took for _, took in after))
            tail = 1000 * percentile([above for above, _ in after], 0.95)
    async with keep(await pick_engine(Settings(sandbox=name), engine.name + uuid.uuid4().hex), Limits(warm=0)) as cold:
        for repeat in range(options.repeats):
            colds.append(1000 * (await _call(cold, f"{repeat}"))[0])
            await cold.discard(f"{repeat}")
    next_details = {"p95 of the last repeat, ms": tail, "with the code's own time, ms": median(whole)}
    return [
        Row(f"P10 {name} first", firsts, details={"without a warm one, ms": median(colds)}),
        Row(f"P10 {name} next", nexts, details=next_details),
    ]


async def _call(sandboxes: Sandboxes, thread: str) -> tuple[float, float]:
    """How many seconds it took above the code's own time, and in all."""
    begun = time.perf_counter()
    async with sandboxes.use(thread) as sandbox, aclosing(sandbox.execute("1 + 1", timeout_s=30)) as events:
        seen = [event async for event in events]
    took = time.perf_counter() - begun
    match seen:
        case [Result("2"), Done(seconds=own)]:
            return took - own, took
    raise RuntimeError(f"the sandbox says {seen}")


async def _until_warm(sandboxes: Sandboxes) -> None:
    async with asyncio.timeout(WARM_S):
        while not sandboxes.warm:
            await asyncio.sleep(0.02)
