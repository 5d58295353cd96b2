"""How many values a JSON body holds, judged before it is parsed: each costs up to forty times its bytes."""

import re

from adlatus.errors import ContentTooLarge

MAX_VALUES = 2_000_000
"""More than a hundred thousand messages have, and more tokens than an embeddings request may hold."""

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[,{\[]', re.DOTALL)


def refuse_wide(body: bytes) -> None:
    """Raise `ContentTooLarge` for a body of too many values; those in its texts do not count."""
    if body.count(b",") + body.count(b"{") + body.count(b"[") <= MAX_VALUES:
        return
    values = 0
    for token in _TOKEN.finditer(body):
        values += token[0][0] != ord('"')
        if values > MAX_VALUES:
            raise ContentTooLarge(f"The request body holds more than {MAX_VALUES} values. Send several requests.")
