"""The table of legal moves."""

from itertools import product

import pytest

from adlatus.runs.lifecycle import ACTIVE, FINAL, MOVES, IllegalMove, check, diagram, sources
from adlatus.store.tables import ENDED
from adlatus.wire.runs import RunStatus as S


def test_every_status_has_a_row() -> None:
    assert set(MOVES) == set(S)


def test_nothing_leaves_a_final_status() -> None:
    assert {S.COMPLETED, S.FAILED, S.CANCELLED, S.INCOMPLETE, S.EXPIRED} == FINAL
    assert set(ENDED) == FINAL
    assert {S.QUEUED, S.IN_PROGRESS, S.REQUIRES_ACTION, S.CANCELLING} == ACTIVE


def test_every_status_can_be_reached_from_queued_and_can_end() -> None:
    reached, frontier = {S.QUEUED}, {S.QUEUED}
    while frontier:
        frontier = {target for status in frontier for target in MOVES[status]} - reached
        reached |= frontier
    assert reached == set(S)
    assert all(MOVES[status] & FINAL for status in ACTIVE)


@pytest.mark.parametrize(("current", "target"), list(product(S, S)))
def test_a_move_is_checked_against_the_table(current: S, target: S) -> None:
    if target in MOVES[current]:
        check(current, target)
        assert current in sources(target)
    else:
        with pytest.raises(IllegalMove) as refused:
            check(current, target)
        assert (refused.value.current, refused.value.target) == (current, target)
        assert current not in sources(target)


def test_the_diagram_draws_every_move_once() -> None:
    lines = diagram().splitlines()
    moves = [line for line in lines if "-->" in line and "[*]" not in line]
    assert len(moves) == len(set(moves)) == sum(len(targets) for targets in MOVES.values())
    assert "    queued --> in_progress" in moves
