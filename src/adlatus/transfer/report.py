"""What a transfer has done, for people: problems as they are met, counts per kind at the end."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from adlatus.transfer.kinds import KINDS


class Outcome(StrEnum):
    """What became of an object. Only one that is refused makes an import fail."""

    CREATED = "created"
    UNCHANGED = "unchanged"
    KEPT = "differs, kept"
    REFUSED = "refused"


@dataclass
class Report:
    """Tells problems to `say` at once, line by line, and counts."""

    say: Callable[[str], None]
    counts: dict[str, Counter[Outcome]] = field(default_factory=lambda: defaultdict(Counter))
    unread: int = 0
    repeated: int = 0
    made_threads: int = 0
    missing: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)

    @property
    def refused(self) -> int:
        return self.unread + sum(counted[Outcome.REFUSED] for counted in self.counts.values())

    def count(self, kind: str, outcome: Outcome, times: int = 1) -> None:
        """So many objects of a kind have come to this."""
        self.counts[kind][outcome] += times

    def not_read(self, where: str, reason: str) -> None:
        """Something that is no object that could be imported."""
        self.unread += 1
        self.say(f"{where}: refused: {reason}")

    def refuse(self, kind: str, where: str, key: str, reason: str) -> None:
        """An object that is not imported."""
        self.count(kind, Outcome.REFUSED)
        self.say(f"{where}: {kind} {key}: refused: {reason}")

    def keep(self, kind: str, where: str, key: str, columns: list[str]) -> None:
        """An object that is there already, and another."""
        self.count(kind, Outcome.KEPT)
        self.say(f"{where}: {kind} {key}: is there already with another {', '.join(columns)}; it stays as it is")

    def lines(self, *, dry_run: bool) -> list[str]:
        """The counts as a table, and what else there is to know."""
        columns = tuple(Outcome)
        heads = ["would be created" if dry_run and each is Outcome.CREATED else str(each) for each in columns]
        width = max(len(kind.name) for kind in KINDS)
        table = [f"{'':<{width}}  " + "  ".join(heads)]
        for kind in KINDS:
            if counted := self.counts.get(kind.name):
                cells = [f"{counted[each]:>{len(head)}}" for each, head in zip(columns, heads, strict=True)]
                table.append(f"{kind.name:<{width}}  " + "  ".join(cells))
        notes = [
            (self.unread, "line(s) or item(s) were refused: no objects that can be imported."),
            (self.repeated, "object(s) were there more than once: the last version counts."),
            (self.made_threads, "thread(s) were not among the objects: made for the messages and runs that name them."),
            (self.missing, "object(s) are named by others and are not there: the names stay."),
        ]
        passed = [f"{times} of {name or 'no kind'}" for name, times in sorted(self.passed_over.items())]
        return [
            *table,
            *(f"{number} {words}" for number, words in notes if number),
            *([f"Passed over, as they are not imported: {', '.join(passed)}."] if passed else []),
        ]
