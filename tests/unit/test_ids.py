"""Ids look like the original's."""

import re

import pytest

from adlatus.ids import Kind, new_id, new_request_id

SHAPES: dict[Kind, str] = {
    "asst": r"asst_[A-Za-z0-9]{24}",
    "thread": r"thread_[A-Za-z0-9]{24}",
    "msg": r"msg_[A-Za-z0-9]{24}",
    "run": r"run_[A-Za-z0-9]{24}",
    "step": r"step_[A-Za-z0-9]{24}",
    "call": r"call_[A-Za-z0-9]{24}",
    "file": r"file-[1-9A-HJ-NP-Za-km-z]{22}",
    "vs": r"vs_[0-9a-f]{32}",
    "vsfb": r"vsfb_[0-9a-f]{32}",
    "upload": r"upload_[0-9a-f]{32}",
    "part": r"part_[0-9a-f]{32}",
}


@pytest.mark.parametrize("kind", SHAPES)
def test_ids_have_the_recorded_shape(kind: Kind) -> None:
    made = {new_id(kind) for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(SHAPES[kind], one) for one in made)


def test_request_ids_have_the_documented_shape() -> None:
    assert re.fullmatch(r"req_[0-9a-f]{32}", new_request_id())
