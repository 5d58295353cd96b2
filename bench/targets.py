"""What is judged: for each row which of its numbers, and by what target, a ratio wherever that is possible."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal


@dataclass(frozen=True)
class Target:
    """A row's target: `judged` must be at most, or at least, `limit`; `stretch` is what would be better still."""

    what: str
    unit: str
    judged: Literal["ratio", "value"]
    bound: Literal["<=", ">="]
    limit: float
    stretch: float | None = None

    def holds(self, number: float, limit: float) -> bool:
        """Whether a number is on the right side of a limit."""
        return number <= limit if self.bound == "<=" else number >= limit


TARGETS = {
    "P1": Target("POST of a streamed run to its first delta, minus the model's own", "ms", "ratio", "<=", 10, 6),
    "P2": Target("streamed runs of 20 deltas, 16 clients", "1/s", "ratio", ">=", 0.06, 0.12),
    "P3": Target("delta events in bursts, 16 streams", "1/s", "ratio", ">=", 0.4, 0.7),
    "P4": Target("server CPU per delta, 60 streams at 50/s", "µs", "ratio", "<=", 2, 1.5),
    "P5": Target("p99 gap between deltas, 200 streams at 50/s", "ms", "value", "<=", 100),
    "P6 retrieve": Target("retrieve a thread, 16 connections", "1/s", "ratio", ">=", 0.14, 0.35),
    "P6 create": Target("create an assistant, 16 connections", "1/s", "ratio", ">=", 0.12, 0.3),
    "P7 list": Target("list 100 of 1,000 messages beside many others", "ms", "ratio", "<=", 1.3, 1.1),
    "P7 first delta": Target("POST of a streamed run to its first delta beside them", "ms", "ratio", "<=", 1.3, 1.1),
    "P8 memory": Target("idle deployment, PSS", "MB", "value", "<=", 400, 250),
    "P8 start": Target("start on an existing data folder to first answer", "s", "value", "<=", 4, 2),
    "P9 p50": Target("hybrid search in one of 20 stores, 20 results, p50", "ms", "value", "<=", 5),
    "P9 p95": Target("the same, p95", "ms", "value", "<=", 15),
    "P10 docker first": Target("first result of a thread from the warm pool, above the code", "ms", "value", "<=", 60),
    "P10 docker next": Target("each next result of the thread, above the code", "ms", "value", "<=", 15),
    "P10 bubblewrap first": Target("the same without Docker: first result", "ms", "value", "<=", 60),
    "P10 bubblewrap next": Target("each next result of the thread, above the code", "ms", "value", "<=", 15),
    "P11": Target("p99 of creating a message against its p50, 16 connections", "ms", "ratio", "<=", 20, 8),
    "P12": Target("p50 of a GET while 50 streams run, against idle", "ms", "ratio", "<=", 5, 2),
    "P13": Target("p99 lag of an event at a reader in another process, 20 streams at 50/s", "ms", "value", "<=", 150),
}


@dataclass(frozen=True)
class Row:
    """What was measured: one entry per repeat. `floor` is what `value` is compared with; `details` are medians."""

    name: str
    values: list[float]
    floors: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    details: Mapping[str, float] = field(default_factory=dict)

    @property
    def target(self) -> Target:
        """The target of this row."""
        return TARGETS[self.name]

    @property
    def judged(self) -> float:
        """The number that the target speaks of."""
        return median(self.ratios if self.target.judged == "ratio" else self.values)

    def as_json(self) -> dict[str, Any]:
        """The row for the JSON file: every repeat, the medians and the verdict."""
        target = self.target
        return {
            "row": self.name,
            **asdict(target),
            "value": median(self.values),
            "floor": median(self.floors) if self.floors else None,
            "ratio": median(self.ratios) if self.ratios else None,
            "holds": target.holds(self.judged, target.limit),
            "holds_stretch": None if target.stretch is None else target.holds(self.judged, target.stretch),
            "repeats": {"values": self.values, "floors": self.floors, "ratios": self.ratios},
            "details": dict(self.details),
        }


def percentile(numbers: list[float], share: float) -> float:
    """The smallest number that is not below so large a share of all."""
    ordered = sorted(numbers)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
