"""What several workers saw is judged as if one had seen it."""

from pathlib import Path

from tests.witness import Seen, Witness
from tests.workers import Worker

GET, POST = ("GET", "/threads"), ("POST", "/threads")
SEEN = {name: Seen(GET, 200, "application/json", {"object": name}) for name in ("thread", "list")}


def test_the_one_that_judges_has_what_every_worker_saw(tmp_path: Path) -> None:
    one = Witness({"a": SEEN["thread"]}, broken=["GET"])
    one.sdks[GET].add(("Python", "1"))
    one.recordings[GET].add("first 1")
    two = Witness({"b": SEEN["list"]})
    two.sdks[GET].add(("JS", "2"))
    two.sdks[POST].add(("JS", "2"))
    judging = Witness({"a": SEEN["thread"]})
    judging.sdks[GET].add(("Python", "3"))
    one.leave(tmp_path / "gw0.seen")
    two.leave(tmp_path / "gw2.seen")
    judging.gather(Worker(tmp_path / "gw1.seen", others=2))
    assert judging.examples == {"a": SEEN["thread"], "b": SEEN["list"]}
    assert judging.sdks == {GET: {("Python", "1"), ("JS", "2"), ("Python", "3")}, POST: {("JS", "2")}}
    assert judging.recordings == {GET: {"first 1"}}
    assert judging.broken == ["GET"]
