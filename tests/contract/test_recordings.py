"""Recorded sessions of the real service, replayed: the server answers as it did, but for a short list of reasons."""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from adlatus.settings import Settings
from tests.conftest import Loop, serving
from tests.contract.replay import Deviation, Exchange, Replay, as_listed, events_of, load
from tests.runs.coding import call, interpreting
from tests.runs.transcripts import client_of

WHOLE = (
    "BasicAssistantOperationsWork",
    "BasicMessageOperationsWork",
    "BasicRunOperationsWork",
    "BasicThreadOperationsWork",
    "MessagesWithRoles",
    "Pagination_CanPageThroughAssistantCollection",
    "Pagination_CanRehydrateAssistantPageCollectionFromBytes",
    "Pagination_CanRehydrateAssistantPageCollectionFromPageToken",
    "SettingResponseFormatWorks",
    "StreamingRunWorks",
    "ThreadWithImageDetailWorks",
    "ThreadWithInitialMessagesWorks",
)

OF_TOOLS = ("FileSearchStreamingWorks", "FileSearchWorks", "FunctionToolsWork", "StreamingToolCall()")

SCRIPT = """
exchanges:
  - expect: {user: {contains: eat on Thursday}}
    answer: {tool_calls: [{name: get_favorite_food_for_day_of_week, arguments: {day_of_week: Thursday}}]}
  - expect: {tool_results: {get_favorite_food_for_day_of_week: tacos}}
    answer: {text: You should eat tacos on Thursday!}
  - expect: {tools: [get_current_weather]}
    answer: {tool_calls: [{name: get_current_weather, arguments: {}}]}
  - expect: {tool_results: {get_current_weather: warm and sunny}}
    answer: {text: "Since it's warm and sunny outside, wear what you like."}
  - expect: {user: {contains: Filip's favorite food}, tool_results: {file_search: {contains: "Filip Carola: cake"}}}
    answer: {text: "Filip's favorite food is cake【4:0†favorite_foods.txt】."}
  - expect: {user: {contains: Filip's favorite food}, tools: [file_search]}
    answer: {tool_calls: [{name: file_search, arguments: {queries: ["Filip's favorite food"]}}]}
"""
"""What the recorded model said and called, as far as the recorded clients went by it."""

OF_CODE = ("BasicRunStepFunctionalityWorks", "Pagination_CanRehydrateRunStepPageCollectionFromBytes")

TABLE = b"x,y\n1,2\n2,4\n3,6\n\n\n"
"""The file of those recordings: the recorder has kept its size only."""

OF_MODELS = (
    "DeleteModelCanParseServiceError",
    "GetModelCanParseServiceError",
    "GetModelInfo",
    "ListModels",
    "SerializeModelCollection",
)

OF_FILES = (
    "DeleteFile(False)",
    "DeleteFile(True)",
    "DeleteFileCanParseServiceError",
    "DownloadFileCanParseServiceError",
    "GetFile",
    "GetFileCanParseServiceError",
    "ListFiles",
    "NonAsciiFilename",
    "SerializeFileCollection",
    "UploadFile(UsingBinaryData)",
    "UploadFile(UsingFilePath)",
    "UploadFile(UsingStream)",
    "UploadFileCanParseServiceError",
    "UserDataPurpose",
)

OF_UPLOADS = (
    "AddUploadPartWorks",
    "CancelUploadWorks",
    "CompleteUploadWorks",
    "CreateUploadWorks(False)",
    "CreateUploadWorks(True)",
)

OF_STORES = (
    "CanApplyChunkingStrategy(Auto)",
    "CanApplyChunkingStrategy(Static)",
    "CanAssociateFiles",
    "CanCreateGetAndDeleteVectorStores",
    "CanEnumerateVectorStores",
    "CanGetVectorStores",
    "CanPaginateGetVectorStoreFilesInBatch",
    "CanUseBatchIngestion",
    "Pagination_CanRehydrateVectorStoreFileCollection",
)

UNORDERED = {
    "CanRehydrateGetVectorStoreFilesInBatchPagination": "a file that was still in progress was listed last, as of 1970",
    "CanTestGetVectorStoreFilesInBatchCollectionOptions": (
        "files of one instant were listed in the order of their ids, and in the same one whichever was asked for"
    ),
}
"""Recordings whose batches are sent in the order in which they were listed then, and why they were listed so.

Of the second the lists that are newest first are left out: they contradict those that are oldest first.
"""

DEVIATIONS = (
    Deviation(
        "thread.message",
        ("status", "incomplete_details", "incomplete_at", "completed_at"),
        "the schema requires them, the wire had them in streams only: both are sent",
        by=("rest",),
    ),
    Deviation(
        "thread.message",
        ("attachments", "file_ids"),
        "a modified message came back with file_ids of the first version in place of attachments: both are sent",
        by=("rest",),
    ),
    Deviation(
        "thread.run.step",
        ("expired_at", "metadata"),
        "the schema requires them, the wire had expires_at only: all are sent",
    ),
    Deviation(
        "file_citation",
        ("quote",),
        "messages had none, though examples of the original read it there: they have it",
    ),
    Deviation("file_citation", ("quote",), "deltas had an empty one: it is what the file says", adds=False),
    Deviation(
        "thread.run",
        ("tool_resources",),
        "streams showed an empty entry for a code interpreter that the same run did not have by REST: it never has",
        adds=False,
        by=("stream",),
    ),
)

DEVIATION_OF_CODE = Deviation(
    "code_interpreter",
    ("outputs",),
    "the value of the last expression was left out: it is in the logs",
    adds=False,
    by=("rest",),
)

DEVIATIONS_OF_STORES = (
    Deviation(
        "vector_store.file",
        ("usage_bytes", "chunking_strategy", "attributes"),
        "files that are listed through their batch lacked them once, and had them later: they are always sent",
    ),
    Deviation(
        "vector_store.file",
        ("usage_bytes",),
        "the chunks of some files were not counted yet when they were completed",
        adds=False,
        values=(21, 1045),
    ),
)


def folder_of(reference: Path) -> Path:
    return reference / "recordings" / "AssistantsTests"


@pytest.mark.parametrize("name", WHOLE)
def test_a_recorded_session_replays_with_the_same_answers(name: str, reference: Path, http: httpx.Client) -> None:
    replay = Replay(http, load(folder_of(reference) / f"{name}.json"), DEVIATIONS, name)
    replay.run()
    assert not replay.differences, "\n".join(replay.differences)


def turns_of(exchanges: Sequence[Exchange]) -> list[dict[str, Any]]:
    """What the model of a recorded run said and called, turn by turn."""
    listed = [each.answer.body["data"] for each in exchanges if each.path.endswith("/steps")]
    steps = {step["id"]: step["step_details"] for data in listed for step in data}
    turns: list[dict[str, Any]] = [{}]
    for details in reversed(steps.values()):
        if "tool_calls" in details:
            turns[-1]["tool_calls"] = [call(each["code_interpreter"]["input"]) for each in details["tool_calls"]]
            turns.append({})
        else:
            turns[-1]["text"] = "I go on."
    return turns


def with_file(exchanges: Sequence[Exchange]) -> list[Exchange]:
    """The session with the bytes of its file, which code finds without its id: that is another one here."""

    def found(value: Any) -> Any:
        match value:
            case str():
                return re.sub(r"'/mnt/data/file-\w+'", "__import__('glob').glob('/mnt/data/file-*')[0]", value)
            case dict():
                return {key: found(each) for key, each in value.items()}
            case list():
                return [found(each) for each in value]
        return value

    body = {"purpose": "assistants", "file": ("text/csv", TABLE)}
    return [
        replace(each, body=body)
        if each.form
        else replace(each, answer=replace(each.answer, body=found(each.answer.body)))
        for each in exchanges
    ]


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", OF_CODE)
def test_a_recorded_session_with_code_replays_with_the_same_answers(
    name: str, reference: Path, loop: Loop, new_database: Callable[[], str], tmp_path: Path
) -> None:
    exchanges = with_file(load(folder_of(reference) / f"{name}.json"))
    first, *others = turns_of(exchanges)
    played: list[dict[str, Any]] = [{"expect": {"tool_results": {}}, "answers": others}, {"answer": first}]
    with interpreting(loop, new_database(), tmp_path, "bubblewrap", played) as server, client_of(server) as http:
        replay = Replay(http, exchanges, [*DEVIATIONS, DEVIATION_OF_CODE], name)
        replay.run()
    assert not replay.differences, "\n".join(replay.differences)
    assert DEVIATION_OF_CODE in replay.met


def test_no_recording_is_forgotten(reference: Path) -> None:
    assert sorted([*WHOLE, *OF_TOOLS, *OF_CODE]) == sorted(path.stem for path in folder_of(reference).glob("*.json"))
    assert sorted(OF_MODELS) == sorted(path.stem for path in (reference / "recordings" / "ModelsTests").glob("*.json"))
    assert sorted(OF_FILES) == sorted(path.stem for path in (reference / "recordings" / "FilesTests").glob("*.json"))
    assert sorted(OF_UPLOADS) == sorted(path.stem for path in (reference / "recordings" / "UploadsTests").glob("*"))
    of_stores = sorted(path.stem for path in (reference / "recordings" / "VectorStoresTests").glob("*"))
    assert sorted([*OF_STORES, *UNORDERED]) == of_stores
    others = {path.name for path in (reference / "recordings").iterdir()}
    assert others == {"AssistantsTests", "FilesTests", "ModelsTests", "UploadsTests", "VectorStoresTests", "openai-php"}


@pytest.fixture(scope="module")
def of_tools(
    loop: Loop, new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A client of a server whose model plays the part of the recorded one."""
    script = tmp_path_factory.mktemp("script") / "recorded.yaml"
    script.write_text(SCRIPT, "utf-8")
    with (
        serving(loop, Settings(database_url=new_database(), rehearsal_script=script)) as server,
        client_of(server) as client,
    ):
        yield client


@pytest.mark.parametrize("name", OF_TOOLS)
def test_a_recorded_session_with_tools_replays_with_the_same_answers(
    name: str, reference: Path, of_tools: httpx.Client
) -> None:
    replay = Replay(of_tools, load(folder_of(reference) / f"{name}.json"), DEVIATIONS, name)
    replay.run()
    assert not replay.differences, "\n".join(replay.differences)


@pytest.fixture(scope="module")
def of_models(
    loop: Loop, new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A client of a server that has the model of the recordings, and no other."""
    table = tmp_path_factory.mktemp("table") / "models.toml"
    table.write_text('[models.gpt-4o-mini]\nendpoint = "rehearsal"', "utf-8")
    with (
        serving(loop, Settings(database_url=new_database(), models_file=table)) as server,
        httpx.Client(base_url=server.base_url) as client,
    ):
        yield client


@pytest.mark.parametrize("name", OF_MODELS)
def test_a_recorded_session_of_models_replays_with_the_same_answers(
    name: str, reference: Path, of_models: httpx.Client
) -> None:
    exchanges = load(reference / "recordings" / "ModelsTests" / f"{name}.json")
    replay = Replay(of_models, exchanges, (), name)
    replay.run()
    assert not replay.differences, "\n".join(replay.differences)


@pytest.mark.parametrize(
    ("folder", "name"),
    [("FilesTests", name) for name in OF_FILES] + [("UploadsTests", name) for name in OF_UPLOADS],
)
def test_a_recorded_session_of_files_or_uploads_replays_with_the_same_answers(
    folder: str, name: str, reference: Path, http: httpx.Client
) -> None:
    del http.headers["OpenAI-Beta"]  # as recorded
    replay = Replay(http, load(reference / "recordings" / folder / f"{name}.json"), (), name)
    replay.run()
    assert not replay.differences, "\n".join(replay.differences)


def of_stores(reference: Path, name: str) -> list[Exchange]:
    return load(reference / "recordings" / "VectorStoresTests" / f"{name}.json")


@pytest.mark.parametrize("name", OF_STORES)
def test_a_recorded_session_of_vector_stores_replays_with_the_same_answers(
    name: str, reference: Path, http: httpx.Client
) -> None:
    del http.headers["OpenAI-Beta"]  # as recorded
    replay = Replay(http, of_stores(reference, name), DEVIATIONS_OF_STORES, name)
    replay.run()
    assert not replay.differences, "\n".join(replay.differences)


@pytest.mark.parametrize("name", UNORDERED)
def test_a_recorded_session_replays_with_a_batch_in_the_order_in_which_it_was_listed(
    name: str, reference: Path, http: httpx.Client
) -> None:
    del http.headers["OpenAI-Beta"]
    exchanges = of_stores(reference, name)
    assert as_listed(exchanges) != exchanges
    oldest_first = any("order=asc" in each.query for each in exchanges)
    contradicting = [each for each in exchanges if oldest_first and each.method == "GET" and "asc" not in each.query]
    assert len(contradicting) == (3 if oldest_first else 0)
    kept = [each for each in as_listed(exchanges) if each not in contradicting]
    replay = Replay(http, kept, DEVIATIONS_OF_STORES, name)
    replay.run()
    assert not replay.differences, "\n".join(replay.differences)


@pytest.mark.parametrize("name", OF_STORES)
def test_other_recordings_list_a_batch_in_the_order_in_which_it_was_sent(name: str, reference: Path) -> None:
    exchanges = of_stores(reference, name)
    assert as_listed(exchanges) == exchanges


def test_a_stream_has_the_events_and_keys_of_an_older_recording(reference: Path, http: httpx.Client) -> None:
    """Of 2024, and edited by those who published it: only names and keys are compared."""
    text = (reference / "recordings" / "openai-php" / "ThreadRunStreamResponse.txt").read_text("utf-8")
    recorded = events_of(text.removesuffix("event: done\n").replace("\nevent:", "\n\nevent:"))
    assistant = http.post("/assistants", json={"model": "gpt-4o", "instructions": "Greet."}).json()["id"]
    words = "[[say: Hello! How can I assist you today?]]"
    body = {
        "assistant_id": assistant,
        "thread": {"messages": [{"role": "user", "content": words}]},
        "stream": True,
    }
    *ours, _ = events_of(http.post("/threads/runs", json=body).text)
    names = [[name for name, _ in itertools.groupby(event.name for event in events)] for events in (recorded, ours)]
    assert names[0] == names[1]
    shown = {event.name: event.data for event in ours}
    for event in recorded:
        keys = list(event.data)
        assert [key for key in shown[event.name] if key in keys] == keys, event.name


def test_every_deviation_is_still_met_in_a_recording(
    reference: Path, http: httpx.Client, of_tools: httpx.Client
) -> None:
    met: set[Deviation] = set()
    for client, name in (
        (http, "BasicMessageOperationsWork"),
        (http, "StreamingRunWorks"),
        (of_tools, "FileSearchStreamingWorks"),
    ):
        replay = Replay(client, load(folder_of(reference) / f"{name}.json"), DEVIATIONS)
        replay.run()
        met |= replay.met
    for name in UNORDERED:
        replay = Replay(http, as_listed(of_stores(reference, name)), DEVIATIONS_OF_STORES)
        replay.run()
        met |= replay.met
    assert met == {*DEVIATIONS, *DEVIATIONS_OF_STORES}


@pytest.mark.parametrize(
    ("recorded", "tampered", "noticed"),
    [
        ('"temperature\\":1.0', '"temperature\\":0.5', "temperature: 0.5, here 1.0"),
        ("thread.message.in_progress", "thread.message.waiting", "events ["),
        ('failed_at\\":null,\\"completed_at\\":null', 'completed_at\\":null,\\"failed_at\\":null', "order ["),
        ('message_id\\":\\"msg_Tn5D', 'message_id\\":\\"msg_AAAA', "a new msg, here one that was seen before"),
        (',\\"annotations\\":[]', "", "with ['annotations']"),
        ('"StatusCode": 200', '"StatusCode": 201', "status 201, here 200"),
        ("1761862342", "1761862343", "expires after 601 s, here 600"),
        ("charset=utf-8", "charset=latin-1", "content-type"),
    ],
)
def test_a_replay_notices_what_differs(
    recorded: str, tampered: str, noticed: str, reference: Path, http: httpx.Client, tmp_path: Path
) -> None:
    session = (folder_of(reference) / "StreamingRunWorks.json").read_text("utf-8")
    assert recorded in session
    (tmp_path / "tampered.json").write_text(session.replace(recorded, tampered), "utf-8")
    replay = Replay(http, load(tmp_path / "tampered.json"), DEVIATIONS)
    replay.run()
    assert any(noticed in difference for difference in replay.differences), replay.differences


@pytest.mark.parametrize(
    ("recorded", "tampered", "noticed"),
    [
        ('"usage_bytes": 1045', '"usage_bytes": 1046', "usage_bytes: 1046, here 1045"),
        ('"max_chunk_size_tokens": 800', '"max_chunk_size_tokens": 801', "max_chunk_size_tokens: 801, here 800"),
        ('"vector_store.file_batch"', '"vector_store.files_batch"', "object: 'vector_store.files_batch', here"),
        ('"total": 5', '"total": 4', "total: 4, here 5"),
        ('"description": null,', "", "with ['description']"),
        ('"vsfb_cf9b', '"vs_cf9b', "an id such as vs_cf9b"),
        ('"vector_store_id": "vs_68c9', '"vector_store_id": "vs_78c9', "a new vs, here one that was seen before"),
        ('"last_id": "file-S7jJ', '"last_id": "file-WCjA', "last_id: a new file, here one that was seen before"),
    ],
)
def test_a_replay_of_vector_stores_notices_what_differs(
    recorded: str, tampered: str, noticed: str, reference: Path, http: httpx.Client, tmp_path: Path
) -> None:
    session = (reference / "recordings" / "VectorStoresTests" / "CanUseBatchIngestion.json").read_text("utf-8")
    assert recorded in session
    (tmp_path / "tampered.json").write_text(session.replace(recorded, tampered), "utf-8")
    replay = Replay(http, load(tmp_path / "tampered.json"), DEVIATIONS_OF_STORES)
    replay.run()
    assert any(noticed in difference for difference in replay.differences), replay.differences
