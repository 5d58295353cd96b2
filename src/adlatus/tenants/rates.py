"""What limited projects may do per minute: requests are let in, tokens are spent. Others cost nothing here."""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

from adlatus.errors import RateLimited, Unavailable
from adlatus.store import rates
from adlatus.store.db import Database
from adlatus.store.projects import Limits
from adlatus.store.rates import MINUTE_S, Standing


class Rates:
    """Lets requests in as far as the limits of their projects allow, exactly, whichever process they reach.

    A request that is refused is not counted. Where one was, this process knows for how long others would be, and does
    not ask the database until then: a client that hammers costs it nothing.
    """

    def __init__(self, database: Database, limits_of: Callable[[str], Limits]) -> None:
        self._database = database
        self._limits_of = limits_of
        self._refused: dict[str, tuple[Standing, float]] = {}

    async def let_in(self, project_id: str) -> Standing | None:
        """Count a request; None where nothing is limited per minute. Raises `RateLimited`."""
        limits = self._limits_of(project_id)
        if not limits.has_rates:
            return None
        standing = self._still_refused(project_id, limits)
        if standing is None and (taken := await rates.take(self._database, project_id, limits)):
            self._refused.pop(project_id, None)
            return taken
        if standing is None:
            standing = await rates.look(self._database, project_id, limits)
            self._refused[project_id] = standing, time.monotonic()
        limit = limits.requests_per_minute
        assert limit is not None, "a request is always let in where requests are not limited"
        raise _refusal(project_id, "requests", limit, standing.requests, standing.request_in_s, standing)

    def _still_refused(self, project_id: str, limits: Limits) -> Standing | None:
        """How full the buckets are at least, if that is too full for a request."""
        if (known := self._refused.get(project_id)) is None or known[0].limits != limits:
            return None
        standing = known[0].after(time.monotonic() - known[1])
        return standing if standing.request_in_s else None

    async def spend(self, project_id: str, tokens: int) -> None:
        """Count tokens that models have used. Where the database does not answer they are let off."""
        limits = self._limits_of(project_id)
        if tokens > 0 and limits.tokens_per_minute is not None:
            with suppress(Unavailable):
                await rates.spend(self._database, project_id, limits, tokens)


def check_tokens(project_id: str, standing: Standing | None) -> None:
    """Refuse what makes a model work where the tokens of the minute are used up. Raises `RateLimited`."""
    limit = standing.limits.tokens_per_minute if standing else None
    if standing and limit is not None and standing.tokens_in_s:
        raise _refusal(project_id, "tokens", limit, standing.tokens, standing.tokens_in_s, standing)


def headers(standing: Standing) -> dict[str, str]:
    """What answers tell of a project's limits per minute. *Source*: the original's headers."""
    told = {}
    for kind, limit, full in (
        ("requests", standing.limits.requests_per_minute, standing.requests),
        ("tokens", standing.limits.tokens_per_minute, standing.tokens),
    ):
        if limit is not None:
            told[f"x-ratelimit-limit-{kind}"] = str(limit)
            told[f"x-ratelimit-remaining-{kind}"] = str(max(0, int(limit - full)))
            told[f"x-ratelimit-reset-{kind}"] = _duration(full / limit * MINUTE_S)
    return told


def _refusal(
    project_id: str, kind: Literal["requests", "tokens"], limit: int, full: float, retry_s: float, standing: Standing
) -> RateLimited:
    """*Source* of the words: field reports."""
    unit = "RPM" if kind == "requests" else "TPM"
    error = RateLimited(
        f"Rate limit reached for project {project_id} in organization adlatus on {kind} per min ({unit}): "
        f"Limit {limit}, Used {round(full)}, Requested 1. Please try again in {_duration(retry_s)}. "
        "Your operator sets the limit.",
        kind=kind,
        retry_s=retry_s,
    )
    error.headers |= headers(standing)
    return error


def _duration(seconds: float) -> str:
    """A time as the original's headers have it, such as `12ms`, `8.64s`, `6m0s`; never shorter than it is."""
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    return (f"{minutes}m" if minutes else "") + f"{rest / 1000:g}s"
