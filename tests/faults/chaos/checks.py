"""What must hold after any trouble: of every run and message that there is, and of all that clients were promised."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx

from adlatus.runs.loop import MAX_ABANDONED
from tests.conftest import BETA
from tests.faults.chaos.clients import Client, Followed, Talk, Turn
from tests.faults.chaos.deployment import Deployment
from tests.faults.chaos.load import CHUNKS, Load
from tests.faults.chaos.questions import MARK, found, outputs
from tests.retrieval.ingesting import found_by, until_settled
from tests.runs.transcripts import FINAL, NOTHING_USED, eventually, sent, words
from tests.sandbox import boxes

Json = dict[str, Any]
ENDS_WITHIN_S = 90
MOST_ABANDONED = 0.1
"""The share of runs that may fail because three of their executors died."""

MOST_STRAYS = 0.1
"""The share of runs that may be too many because the answer to the request for them was lost."""


@dataclass
class Seen:
    """What there is after all, and how it came out."""

    statuses: Counter[str] = field(default_factory=Counter)
    attempts: Counter[int] = field(default_factory=Counter)
    strays: int = 0
    comebacks: int = 0
    holes: int = 0


def check(deployment: Deployment, load: Load) -> Seen:
    """Everything, over HTTP and in the database; the processes are stopped in order at the end."""
    seen = Seen()
    front = deployment.members[1].url
    with httpx.Client(base_url=f"{front}/v1", headers=BETA, timeout=30) as http:
        rows = _ended(deployment, http)
        seen.statuses.update(row["status"] for row in rows.values())
        seen.attempts.update(row["attempt"] for row in rows.values())
        _check_nothing_is_open(deployment)
        for client in load.clients:
            for talk in client.talks:
                _check_talk(http, client, talk, rows, seen)
        lost = [row for row in rows.values() if row["status"] == "failed"]
        assert all(row["abandoned"] >= MAX_ABANDONED for row in lost), lost
        assert len(lost) <= max(1, MOST_ABANDONED * len(rows)), f"{len(lost)} of {len(rows)} runs failed"
        assert seen.strays <= max(1, MOST_STRAYS * len(rows)), seen
        _check_files(deployment, http, load)
    _check_sandboxes(deployment)
    return seen


def _ended(deployment: Deployment, http: httpx.Client) -> dict[str, Json]:
    """The rows of all runs once they have ended; those that nobody knows of get the outputs that they want, too."""

    def look() -> bool:
        left = deployment.records.execute(
            "SELECT id, thread_id, status FROM runs WHERE NOT status = ANY($1)", list(FINAL)
        )
        for row in left:
            if row["status"] == "requires_action":
                path = f"/threads/{row['thread_id']}/runs/{row['id']}"
                sent(http.post(f"{path}/submit_tool_outputs", json={"tool_outputs": outputs(sent(http.get(path)))}))
        return not left

    eventually(look, within_s=ENDS_WITHIN_S)
    return {row["id"]: row for row in deployment.records.execute("SELECT * FROM runs")}


def _check_nothing_is_open(deployment: Deployment) -> None:
    for nothing in (
        "SELECT id FROM runs WHERE lease_token IS NOT NULL",
        "SELECT id FROM messages WHERE status = 'in_progress'",
        "SELECT id FROM run_steps WHERE status = 'in_progress'",
        "SELECT step.id FROM run_steps step JOIN runs run ON run.id = step.run_id "
        "WHERE run.status = 'completed' AND step.status <> 'completed'",
    ):
        assert deployment.records.execute(nothing) == [], nothing


def _check_talk(http: httpx.Client, client: Client, talk: Talk, rows: dict[str, Json], seen: Seen) -> None:
    messages = _all(http, f"/threads/{talk.thread_id}/messages")
    runs = {run["id"]: run for run in _all(http, f"/threads/{talk.thread_id}/runs")}
    _check_questions(talk, messages)
    _check_promised(talk, runs, rows)
    made: dict[str, list[Json]] = {}
    for run in runs.values():
        steps = made[run["id"]] = _all(http, f"/threads/{talk.thread_id}/runs/{run['id']}/steps")
        answers = [message for message in messages if message["run_id"] == run["id"]]
        _check_run(run, steps, answers)
        _check_outputs(talk.outputs.get(run["id"], {}), steps)
        if run["status"] == "completed":
            turn = _asked_by(talk, run, runs.values(), messages)
            if turn is None:
                seen.strays += 1
            else:
                _check_answers(turn, rows[run["id"]]["attempt"], steps, answers)
    for turn in talk.turns:
        if turn.followed:
            seen.comebacks += turn.followed.comebacks
            seen.holes += turn.followed.holes
            _check_followed(turn, turn.followed, runs[turn.run_id], made[turn.run_id], messages)


def _check_questions(talk: Talk, messages: list[Json]) -> None:
    """No message of the client is lost, doubled, changed or out of order, and there are none of nobody's."""
    told = [message for message in messages if message["role"] == "user"]
    marks = Counter(message["metadata"][MARK] for message in told)
    assert set(marks.values()) <= {1}, f"a request was carried out twice: {marks}"
    assert set(marks) <= {mark for turn in talk.turns for mark in turn.asked}
    ids = [message["id"] for message in told]
    acknowledged = [turn.message_id for turn in talk.turns if turn.message_id]
    assert [one for one in ids if one in acknowledged] == acknowledged
    texts = {message["id"]: words(message["content"]) for message in told}
    assert all(texts[turn.message_id] == turn.question.text for turn in talk.turns if turn.message_id)


def _check_promised(talk: Talk, runs: dict[str, Json], rows: dict[str, Json]) -> None:
    """Every run that was acknowledged is there and has come out as it may; none was made twice by one request."""
    marks = Counter(run["metadata"][MARK] for run in runs.values())
    assert set(marks.values()) <= {1}, f"a request was carried out twice: {marks}"
    for turn in talk.turns:
        assert turn.run_id in runs
    for run in runs.values():
        cancels = any(turn.question.cancels for turn in talk.turns if run["metadata"][MARK] in turn.started)
        allowed = ("completed", "failed", "cancelled") if cancels else ("completed", "failed")
        assert run["status"] in allowed, (run, rows[run["id"]]["abandoned"])


def _check_run(run: Json, steps: list[Json], answers: list[Json]) -> None:
    used = {name: sum((step["usage"] or NOTHING_USED)[name] for step in steps) for name in _COUNTED}
    assert {name: run["usage"][name] for name in _COUNTED} == used, (run, steps)
    if run["status"] != "completed":
        return
    assert [message["status"] for message in answers] == ["completed"] * len(answers)
    written = [step["step_details"]["message_creation"]["message_id"] for step in steps if _writes(step)]
    assert written == [message["id"] for message in answers]


def _check_outputs(acknowledged: dict[str, str], steps: list[Json]) -> None:
    """Every output that was acknowledged is kept, whatever became of the run."""
    calls = [call for step in steps if not _writes(step) for call in step["step_details"]["tool_calls"]]
    kept = {call["id"]: call["function"]["output"] for call in calls if call["type"] == "function"}
    assert acknowledged.items() <= kept.items(), (acknowledged, steps)


_COUNTED = ("prompt_tokens", "completion_tokens", "total_tokens")


def _writes(step: Json) -> bool:
    return bool(step["type"] == "message_creation")


def _asked_by(talk: Talk, run: Json, runs: Iterable[Json], messages: list[Json]) -> Turn | None:
    """The turn that a run belongs to, unless it came so late, or beside another one, that it has answered otherwise."""
    first = next(place for place, message in enumerate(messages) if message["run_id"] == run["id"])
    asked = next(message for message in reversed(messages[:first]) if message["role"] == "user")
    [turn] = [turn for turn in talk.turns if asked["metadata"][MARK] in turn.asked]
    of_turn = [one["id"] for one in runs if one["metadata"][MARK] in turn.started]
    return turn if of_turn == [run["id"]] else None


def _check_answers(turn: Turn, attempts: int, steps: list[Json], answers: list[Json]) -> None:
    """The run has said what the model was scripted to say, once, and has called what it was scripted to call, once."""
    calls = [call for step in steps if not _writes(step) for call in step["step_details"]["tool_calls"]]
    question = turn.question
    if question.kind == "functions":
        [call] = calls
        assert call["function"]["output"] == found(question.name)
        # What was said before calls that a dead executor left half-written stays, and is said once more
        *before, after = (json.loads(words(message["content"])) for message in answers)
        assert 1 <= len(before) <= attempts
        assert after[: len(before[-1])] == before[-1]
        *said, came_back = after[len(before[-1]) :]
        assert [one["content"] for one in said] == [words(message["content"]) for message in answers[:-1]]
        assert [one["id"] for one in said[-1]["tool_calls"]] == [call["id"]]
        assert (came_back["tool_call_id"], came_back["content"]) == (call["id"], found(question.name))
        assert question.text in [one["content"] for one in after]
        return
    assert [words(message["content"]) for message in answers] == [question.said]
    match question.kind:
        case "text":
            assert calls == []
        case "search":
            [call] = calls
            assert call["file_search"]["results"], call
        case _:
            [call] = calls
            [output] = call["code_interpreter"]["outputs"]
            assert output["logs"].endswith(f"{question.name}\n"), call  # after a notice that the sandbox is a new one
            assert output["logs"].count(question.name) == 1, call


def _check_followed(turn: Turn, followed: Followed, run: Json, steps: list[Json], messages: list[Json]) -> None:
    """The stream told nothing twice, nothing else than what is kept, and the end of all of it."""
    numbers = [event.number for event in followed.events if event.number]
    assert numbers == sorted(set(numbers)), numbers
    texts = {message["id"]: words(message["content"]) for message in messages if message["run_id"] == run["id"]}
    told = [event.payload for event in followed.events if event.name != "done"]
    if run["status"] == "completed":
        assert followed.whole == texts, (turn, texts)
        # That a client's outputs have arrived is told after their commit, by a process that may die in between
        wrote = {step["id"] for step in steps if _writes(step)}
        assert wrote <= {one["id"] for one in told if one.get("status") == "completed"}, turn
    for message_id, text in texts.items():
        said = followed.said.get(message_id, "")
        if run["status"] == "completed" and not followed.holes:
            assert said == text, (turn, said, text)
        assert len(said) <= len(text) or run["status"] != "completed"
    last = [
        event.payload for event in followed.events if event.name.startswith("thread.run.") and _is_run(event.payload)
    ]
    # A stream that ends where the run waits for its client does not hear of a cancel that comes after it
    may_have_paused = {"requires_action"} if run["status"] in ("cancelled", "expired") else set()
    assert last[-1]["status"] in {run["status"], *may_have_paused}, turn


def _is_run(payload: Any) -> bool:
    return bool(payload["object"] == "thread.run")


def _check_files(deployment: Deployment, http: httpx.Client, load: Load) -> None:
    """Every file that was acknowledged is searchable, and has its chunks in the index once."""
    until_settled(http, load.store_id, ENDS_WITHIN_S)
    records = deployment.records
    rows = {row["id"]: row for row in records.files(load.store_id)}
    for topic, file_id in load.files.items():
        row = rows[file_id]
        if row["status"] == "failed":
            assert row["abandoned"] >= MAX_ABANDONED, row
        else:
            assert (row["status"], row["chunks"], row["lease_token"]) == ("completed", CHUNKS, None), row
            assert found_by(http, load.store_id, topic) == [file_id]
    records.let_all_be_swept(http)
    expected = records.expected(load.store_id)
    eventually(lambda: deployment.qdrant.chunks(load.store_id) == expected)


def _check_sandboxes(deployment: Deployment) -> None:
    """Sandboxes and what is known of them end with their processes."""
    eventually(deployment.boxes)
    eventually(lambda: not deployment.orphans())
    deployment.records.execute(
        "UPDATE executors SET heartbeat = now() - interval '1 hour' WHERE heartbeat < now() - interval '16 seconds'"
    )
    eventually(lambda: _executors(deployment) <= len(deployment.members))
    for member in deployment.members:
        member.stop()
    assert _executors(deployment) == 0
    assert deployment.records.execute("SELECT * FROM sandbox_sessions") == []
    eventually(lambda: not deployment.boxes())
    assert [boxes.left("bubblewrap", instance) for instance in deployment.instances] == [set()] * 3


def _executors(deployment: Deployment) -> int:
    return len(deployment.records.execute("SELECT id FROM executors"))


def _all(http: httpx.Client, path: str) -> list[Json]:
    """The whole list, the oldest first."""
    listed: list[Json] = []
    after: dict[str, str] = {}
    while True:
        page = sent(http.get(path, params={"order": "asc", "limit": 100, **after}))
        listed += page["data"]
        if not page["has_more"]:
            return listed
        after = {"after": page["last_id"]}
