"""The legal moves of a run, as data. Knows no database; `journal` derives its guarded updates from here.

A run is created `queued`. An executor takes it to `in_progress`; the one that receives it does so in the transaction
that creates it, which tells of both. From there it ends as `completed`, `failed`,
`incomplete` or `expired`, or waits in `requires_action` for its client, whose outputs put it back to `queued`.
A cancel moves it to `cancelling`, and whoever executes it, or the cancelling request itself where nobody does, to
`cancelled`. While it is `cancelling` the answer may still win the race. Nothing leaves a final status.

*Source*: semantics, section 1, and the schema's list of statuses.
"""

from adlatus.wire.runs import RunStatus as S

MOVES: dict[S, frozenset[S]] = {
    S.QUEUED: frozenset({S.IN_PROGRESS, S.CANCELLING, S.EXPIRED, S.FAILED}),
    S.IN_PROGRESS: frozenset({S.REQUIRES_ACTION, S.CANCELLING, S.COMPLETED, S.FAILED, S.INCOMPLETE, S.EXPIRED}),
    S.REQUIRES_ACTION: frozenset({S.QUEUED, S.CANCELLING, S.FAILED, S.EXPIRED}),
    S.CANCELLING: frozenset({S.CANCELLED, S.COMPLETED, S.FAILED, S.EXPIRED}),
    S.CANCELLED: frozenset(),
    S.FAILED: frozenset(),
    S.COMPLETED: frozenset(),
    S.INCOMPLETE: frozenset(),
    S.EXPIRED: frozenset(),
}
"""From each status, the statuses it may move to."""

FINAL = frozenset(status for status, targets in MOVES.items() if not targets)
"""Statuses that nothing leaves."""

ACTIVE = frozenset(MOVES) - FINAL
"""Statuses that lock the thread."""


class IllegalMove(Exception):  # noqa: N818
    """The run is not in a status from which it may move there; nothing was changed."""

    def __init__(self, current: S, target: S) -> None:
        super().__init__(f"a run cannot move from {current} to {target}")
        self.current = current
        self.target = target


def sources(target: S) -> frozenset[S]:
    """The statuses from which a run may move to `target`."""
    return frozenset(status for status, targets in MOVES.items() if target in targets)


def check(current: S, target: S) -> None:
    """Raise `IllegalMove` unless the table has the move."""
    if target not in MOVES[current]:
        raise IllegalMove(current, target)


def diagram() -> str:
    """The table as a Mermaid state diagram, for the documentation."""
    lines = ["stateDiagram-v2", f"    [*] --> {S.QUEUED}"]
    lines += [f"    {status} --> {target}" for status in S for target in S if target in MOVES[status]]
    lines += [f"    {status} --> [*]" for status in S if status in FINAL]
    return "\n".join(lines) + "\n"
