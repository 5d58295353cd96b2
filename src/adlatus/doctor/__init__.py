"""`adlatus doctor`: checks every component as `serve` would use it and prints a table with advice."""

from adlatus.doctor import components, machine
from adlatus.settings import Settings


async def examine(settings: Settings) -> int:
    """Print a table of findings; 1 if a configured component is down, else 0."""
    findings = [
        await machine.data_folder(settings),
        await machine.disk(settings),
        await components.database(settings),
        await machine.clock(settings),
        await components.storage(settings),
        *await components.models(settings),
        await components.index(settings),
        await components.embeddings(settings),
        await components.reranker(settings),
        await components.code(settings),
        await machine.keys(settings),
        await machine.traces(settings),
        await machine.server(settings),
    ]
    marks = {True: "ok", False: "FAILS", None: "-"}
    width = max(len(finding.component) for finding in findings)
    for finding in findings:
        print(f"{finding.component:<{width}}  {marks[finding.ok]:<5}  {finding.found}")
        if finding.advice:
            print(f"{'':<{width}}         {finding.advice}")
    return 1 if any(finding.ok is False for finding in findings) else 0
