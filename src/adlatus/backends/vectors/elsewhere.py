"""The index of a process that cannot have it: embedded, in the folder of another server."""

from typing import NoReturn

from adlatus.errors import Unavailable


class ElsewhereIndex:
    """A `VectorIndex` that is never there: whatever is asked, it raises `Unavailable` with its advice."""

    def __init__(self, advice: str) -> None:
        self._advice = advice

    async def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise Unavailable(self._advice)

    ping = ensure = upsert = delete = set_attributes = count = chunks = languages = search = optimize = _refuse
