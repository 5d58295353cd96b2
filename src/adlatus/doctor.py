"""`adlatus doctor`: checks every component as `serve` would use it and prints a table with advice."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import asyncpg
import httpx

from adlatus.backends.llm import Endpoint, ModelError, open_llm
from adlatus.backends.postgres import attach
from adlatus.errors import StartupError
from adlatus.rehearsal.script import load
from adlatus.settings import Settings
from adlatus.store import migrate


@dataclass(frozen=True)
class Finding:
    """What is known of one component. `ok` is None where there is nothing to check."""

    component: str
    ok: bool | None
    found: str
    advice: str = ""


async def examine(settings: Settings) -> int:
    """Print a table of findings; 1 if a configured component is down, else 0."""
    checks: tuple[Callable[[Settings], Awaitable[Finding]], ...] = (_database, _model, _keys, _server)
    findings = [await check(settings) for check in checks]
    marks = {True: "ok", False: "FAILS", None: "-"}
    width = max(len(finding.component) for finding in findings)
    for finding in findings:
        print(f"{finding.component:<{width}}  {marks[finding.ok]:<5}  {finding.found}")
        if finding.advice:
            print(f"{'':<{width}}         {finding.advice}")
    return 1 if any(finding.ok is False for finding in findings) else 0


async def _database(settings: Settings) -> Finding:
    try:
        if settings.database_url is None:
            embedded = await attach(settings.data_dir)
            if embedded is None:
                return Finding(
                    "database", None, f"embedded, not running ({settings.data_dir}); `adlatus serve` starts it"
                )
            dsn = embedded.dsn
        else:
            dsn = settings.database_url.get_secret_value()
        revision = await migrate.current(dsn)
    except StartupError as error:
        return Finding("database", False, str(error))
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError, ValueError) as error:
        return Finding("database", False, f"cannot connect: {error}", "Check ADLATUS_DATABASE_URL and the server.")
    if revision != migrate.head():
        return Finding("database", False, f"at revision {revision or 'none'}", "Run `adlatus migrate`.")
    return Finding("database", True, f"at revision {revision}")


async def _model(settings: Settings) -> Finding:
    if settings.model_base_url is None and settings.rehearsal_script:
        try:
            script = load(settings.rehearsal_script)
        except StartupError as error:
            return Finding("model", False, str(error))
        return Finding("model", True, f"rehearsal: plays {script.name}, {len(script.exchanges)} exchange(s)")
    if settings.model_base_url is None:
        return Finding(
            "model",
            None,
            "rehearsal: a scripted stand-in, not a language model",
            "Set ADLATUS_MODEL_BASE_URL, for example http://localhost:11434/v1, and ADLATUS_MODEL.",
        )
    key = settings.model_api_key.get_secret_value() if settings.model_api_key else None
    try:
        async with open_llm(Endpoint(settings.model_base_url, key, settings.model)) as llm:
            offered = [model["id"] for model in await llm.models()]
    except ModelError as error:
        return Finding("model", False, error.message)
    if settings.model and settings.model not in offered:
        return Finding("model", False, f"no model '{settings.model}' there", f"It offers: {', '.join(offered[:20])}")
    return Finding("model", True, f"{settings.model_base_url} offers {len(offered)} model(s)")


async def _keys(settings: Settings) -> Finding:
    if settings.keys:
        return Finding("keys", True, f"{len(settings.keys)} configured")
    return Finding("keys", None, "none: loopback only", "Set ADLATUS_API_KEYS to serve other machines.")


async def _server(settings: Settings) -> Finding:
    url = f"http://{settings.host}:{settings.port}/readyz"
    headers = {"authorization": f"Bearer {settings.keys[0].secret.get_secret_value()}"} if settings.keys else {}
    try:
        async with httpx.AsyncClient(timeout=3, trust_env=False) as client, asyncio.timeout(5):
            response = await client.get(url, headers=headers)
            state = response.json()
    except (httpx.HTTPError, ValueError, TimeoutError):
        return Finding("server", None, f"none answers at {url}")
    broken = {name: what for name, what in state.get("components", {}).items() if what != "ok"}
    if broken or response.status_code != httpx.codes.OK:
        return Finding("server", False, f"{url} says: {broken or state}", "Its log has the details.")
    return Finding("server", True, f"{url} is ready")
