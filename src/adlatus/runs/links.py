"""Links to files of the sandbox in a model's text, found however its tokens are cut. Pure.

A link is `sandbox:/mnt/data/` and the path of a file that code has written and that was kept. All others stay text.
"""

import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote

from adlatus.runs.citations import Cited
from adlatus.wire.messages import file_path

PREFIX = "sandbox:/mnt/data/"
# A longer name goes on here: another file, which is not known
_END = r"(?![\w/-]|\.\w)"


class Links:
    """A filter of text that finds links. `files` are the ids of kept files, one at least, by their paths there.

    Nothing is held back but what may still become a link.
    """

    def __init__(self, files: Mapping[str, str]) -> None:
        self._targets = {PREFIX + quote(path): file_id for path, file_id in files.items()}
        self._targets |= {PREFIX + path: file_id for path, file_id in files.items()}
        longest_first = sorted(self._targets, key=len, reverse=True)
        self._pattern = re.compile(f"(?:{'|'.join(map(re.escape, longest_first))}){_END}")
        self._held = ""
        self._length = 0

    def filter(self, pieces: Iterable[str | Cited]) -> list[str | Cited]:
        """What may be shown now that there are these pieces of text more. Citations are never part of a link."""
        new: list[str | Cited] = []
        for piece in pieces:
            if isinstance(piece, str):
                new += self._read(self._held + piece, ended=False)
            else:
                new += [*self.finish(), piece]
                self._length += len(piece.text)
        return new

    def finish(self) -> list[str | Cited]:
        """What may be shown of what was held back, now that the text has ended."""
        return self._read(self._held, ended=True)

    def _read(self, text: str, *, ended: bool) -> list[str | Cited]:
        end = len(text) if ended else self._decided(text)
        new: list[str | Cited] = []
        shown = 0
        for link in self._pattern.finditer(text):
            if link.end() > end:
                break
            self._say(text[shown : link.start()], new)
            annotation = file_path(link[0], self._length, self._targets[link[0]])
            new.append(Cited(link[0], 0, annotation))
            self._length += len(link[0])
            shown = link.end()
        self._say(text[shown:end], new)
        self._held = text[end:]
        return new

    def _say(self, text: str, new: list[str | Cited]) -> None:
        if text:
            new.append(text)
            self._length += len(text)

    def _decided(self, text: str) -> int:
        """Up to where it is certain what is a link."""
        if (begun := text.rfind(PREFIX)) >= 0 and self._may_go_on(text[begun:]):
            return begun
        for size in range(min(len(PREFIX) - 1, len(text)), 0, -1):
            if text.endswith(PREFIX[:size]):
                return len(text) - size
        return len(text)

    def _may_go_on(self, tail: str) -> bool:
        return any(target.startswith(tail) or tail in (target, f"{target}.") for target in self._targets)
