"""The code interpreter inside runs: what is streamed, what REST shows, what the model is told, and files both ways."""

import csv
import io
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psutil
import pytest
from openai import AssistantEventHandler, OpenAI

from adlatus.runs import deserted
from tests.conftest import Loop, Server
from tests.runs.coding import CODE, ENGINES, call, coder, coding, exchange, executed, interpreting, upload
from tests.runs.functions import ENDED, WAITS, calls_of, function
from tests.runs.searching import forget, named, played
from tests.runs.stored import execute
from tests.runs.transcripts import (
    DONE,
    OPENING,
    Event,
    asked,
    check_ended,
    client_of,
    sent,
    speaking,
    transcript,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

Json = dict[str, Any]

SOLVE = "from sympy import symbols, solve\nx = symbols('x')\nprint(solve(3 * x + 11 - 14, x))"
PLOT = "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nplt.show()"
THREE = "\n".join(f"plt.figure(); plt.bar(['a', 'b'], [{n}, 2]); plt.show()" for n in (1, 2, 3)) + "\nprint('three')"
WRITE = (
    "import csv\nfile = open('/mnt/data/squares.csv', 'w')\n"
    + "csv.writer(file).writerows([[n, n * n] for n in range(5)])\nfile.close()"
)
LINK = "sandbox:/mnt/data/squares.csv"
SLOW = "import time\nfor n in range(3):\n    print('line', n, flush=True)\n    time.sleep(0.4)"
SCRIPT = [
    *coding("Solve 3x + 11 = 14", SOLVE, "[1]", "x is 1."),
    *coding("Slowly?", SLOW, "line 2", "Done."),
    *coding("Value?", "6 * 7", "42", "It is 42."),
    exchange("Wrong?", {"tool_calls": [call("1 / 0")]}),
    exchange("Wrong?", {"tool_calls": [call("print('right')")]}, output="ZeroDivisionError"),
    exchange("Wrong?", {"text": "It went right."}, output="right"),
    *coding("Keep a number.", "number = 41", "It has printed nothing", "Kept."),
    *coding("And add one.", "print(number + 1)", "42", "42."),
    exchange("Charts?", {"text": "I draw.", "tool_calls": [call(PLOT)]}),
    exchange("Charts?", {"text": "Here they are."}, output="three"),
    exchange("Charts?", {"tool_calls": [call(THREE)]}, output="An image was shown"),
    *coding("Squares?", WRITE, "Files written: /mnt/data/squares.csv", f"[Squares]({LINK}), and again {LINK}."),
    exchange("Again the squares?", {"text": f"See {LINK}"}),
    exchange("Both?", {"tool_calls": [call("print(1)"), {"name": "add", "arguments": "{}"}, call("print(2)")]}),
    exchange("Both?", {"text": "Done."}, tool_results={"add": "7"}),
    exchange("Malformed?", {"tool_calls": [{"name": "code_interpreter", "arguments": '{"code": "print(1)'}]}),
    exchange("Malformed?", {"text": "Sorry."}, output="Nothing was executed: the arguments are not JSON"),
    exchange("Bare?", {"tool_calls": [{"name": "code_interpreter", "arguments": "print('bare')"}]}),
    exchange("Bare?", {"text": "Fine."}, output="bare"),
    *coding("Endless?", "while True: pass", "interrupted", "It took too long."),
    *coding("For a long time?", "import time; print('begun', flush=True); time.sleep(600)", "never", "Never."),
    *coding("Killed?", "import time; print('begun', flush=True); time.sleep(600)", "The sandbox was lost", "It went."),
    *coding("Unkept?", WRITE, "could not be kept: The file storage does not answer", "It could not be kept."),
    *coding("Loud?", "print('x' * 3_000_000)", "left out", "Loud."),
    *coding("Read it.", "print(open('/mnt/data/sales.csv').read())", "a,1", "Read."),
    exchange("Which files?", {"tool_calls": [call("import os; print(sorted(os.listdir('/mnt/data')))")]}),
    exchange("Which files?", {"text": "Those."}, output="["),
    *coding(
        "Change it.", "open('/mnt/data/sales.csv', 'a').write('b,2\\n')", "", "[Changed](sandbox:/mnt/data/sales.csv)"
    ),
    *coding("Lose it.", "print('here')", "here", "Here."),
    *coding("Exhaust it.", "size = 2_000_000_000\nkept = b'x' * size", "restarted", "Too much."),
    *coding("Is it there?", "print(open('/mnt/data/squares.csv').read())", "4,16", "It is."),
    *coding("Quit.", "import os; os._exit(3)", "Python ended unexpectedly", "It ended."),
    exchange("Forced", {"tool_calls": [call("print('forced')")]}),
    exchange("Forced", {"text": "Forced."}, output="forced"),
]
CALLING = ["thread.run.step.created in_progress", "thread.run.step.in_progress in_progress"]
CALLED = "thread.run.step.completed completed"


@pytest.fixture(scope="module", params=ENGINES)
def interpreter(
    request: pytest.FixtureRequest, loop: Loop, new_database: Callable[[], str], tmp_path_factory: Any
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("script")
    with interpreting(loop, new_database(), folder, request.param, SCRIPT, code_timeout_s=8) as server:
        yield server


@pytest.fixture
def http(interpreter: Server) -> Iterator[httpx.Client]:
    forget(interpreter)
    with client_of(interpreter) as client:
        yield client


@pytest.fixture
def sdk(interpreter: Server) -> OpenAI:
    return OpenAI(base_url=interpreter.base_url, api_key="none")


def test_code_is_streamed_while_it_is_written_and_logs_while_it_runs(http: httpx.Client) -> None:
    talk = coder(http, "Solve 3x + 11 = 14")
    events = talk.stream()
    told = f"thread.run.step.delta code_interpreter {SOLVE} -> [1]\n"
    assert transcript(events) == [*OPENING, *CALLING, told, CALLED, *speaking("x is 1."), *ENDED]
    _, _, [step, _] = check_ended(talk, events)
    [code] = executed(step)
    assert code == {"input": SOLVE, "outputs": [{"type": "logs", "logs": "[1]\n"}]}
    assert list(step["step_details"]["tool_calls"][0]) == ["id", "type", "code_interpreter"]
    begun, *rest = [event["delta"]["step_details"]["tool_calls"][0] for event in named(events, "thread.run.step.delta")]
    assert begun["code_interpreter"] == {"input": "", "outputs": []}
    assert begun["id"]
    assert all("id" not in each and each["index"] == 0 and each["type"] == "code_interpreter" for each in rest)
    assert len([each for each in rest if "input" in each["code_interpreter"]]) > 3


def test_logs_come_while_the_code_runs(http: httpx.Client) -> None:
    talk = coder(http, "Slowly?")
    seen: dict[str, float] = {}
    with talk.streaming() as events:
        for event in events:
            if event.name == "thread.run.step.delta":
                for output in event.payload["delta"]["step_details"]["tool_calls"][0]["code_interpreter"].get(
                    "outputs", ()
                ):
                    for line in output["logs"].splitlines():
                        seen.setdefault(line, time.monotonic())
    assert list(seen) == ["line 0", "line 1", "line 2"]
    assert seen["line 2"] - seen["line 0"] > 0.5


def test_the_official_sdk_accumulates_code_and_outputs(sdk: OpenAI, http: httpx.Client) -> None:
    talk = coder(http, "Solve 3x + 11 = 14")
    printed: list[str] = []

    class Handler(AssistantEventHandler):
        def on_tool_call_created(self, tool_call: Any) -> None:
            printed.append(f"> {tool_call.type}")

        def on_tool_call_delta(self, delta: Any, _: Any) -> None:
            if delta.code_interpreter.input:
                printed.append(delta.code_interpreter.input)
            printed.extend(output.logs for output in delta.code_interpreter.outputs or ())

    with sdk.beta.threads.runs.stream(
        thread_id=talk.thread_id, assistant_id=talk.assistant_id, event_handler=Handler()
    ) as stream:
        steps = stream.get_final_run_steps()
    assert "".join(printed) == f"> code_interpreter{SOLVE}[1]\n"
    [step, _] = steps
    [kept] = executed(talk.steps(step.run_id)[0])
    [accumulated] = executed(step.to_dict())
    for output in accumulated["outputs"]:
        del output["index"]  # left by the accumulator
    assert accumulated == kept


def test_the_last_value_is_in_the_logs(http: httpx.Client) -> None:
    talk = coder(http, "Value?")
    assert talk.completed() == "It is 42."
    assert executed(talk.steps(talk.active())[0]) == [{"input": "6 * 7", "outputs": [{"type": "logs", "logs": "42\n"}]}]


def test_errors_come_back_to_the_model_which_tries_again(http: httpx.Client) -> None:
    talk = coder(http, "Wrong?")
    assert talk.completed() == "It went right."
    wrong, right, _ = talk.steps(talk.active())
    [output] = executed(wrong)[0]["outputs"]
    assert "ZeroDivisionError: division by zero" in output["logs"]
    assert executed(right)[0]["outputs"] == [{"type": "logs", "logs": "right\n"}]


def test_variables_stay_from_run_to_run(http: httpx.Client, interpreter: Server) -> None:
    talk = coder(http, "Keep a number.")
    assert talk.completed() == "Kept."
    talk.say("And add one.")
    assert talk.completed() == "42."
    asked_last = played(interpreter)[-1]["messages"]
    called = [message["tool_calls"][0]["function"]["arguments"] for message in asked_last if "tool_calls" in message]
    assert ["number = 41" in each for each in called] == [True, False]  # the model knows what it has done before
    other = coder(http, "And add one.")
    run = other.ended(other.start()["id"])
    assert "NameError" in executed(other.steps(run["id"])[0])[0]["outputs"][0]["logs"]


def test_images_are_outputs_and_begin_the_next_message(http: httpx.Client, sdk: OpenAI) -> None:
    talk = coder(http, "Charts?")
    events = talk.stream()
    _, [first, last], steps = check_ended(talk, events)
    assert [part["type"] for part in first["content"]] == ["text"]
    assert [part["type"] for part in last["content"]] == ["image_file"] * 4 + ["text"]
    outputs = [
        output
        for step in steps
        for code in (executed(step) if step["type"] == "tool_calls" else ())
        for output in code["outputs"]
    ]
    assert [output["type"] for output in outputs] == ["image"] * 4 + ["logs"]
    ids = [output["image"]["file_id"] for output in outputs[:4]]
    assert [part["image_file"]["file_id"] for part in last["content"][:4]] == ids
    for file_id in ids:
        assert sdk.files.content(file_id).read().startswith(b"\x89PNG\r\n\x1a\n")
    assert sdk.files.retrieve(ids[0]).purpose == "assistants_output"
    deltas = [part for event in named(events, "thread.message.delta") for part in event["delta"]["content"]]
    of_last = deltas[[part["type"] for part in deltas].index("image_file") :]
    assert [part["index"] for part in of_last] == [0, 1, 2, 3, *[4] * (len(of_last) - 4)]


def test_a_written_file_comes_back_and_its_link_is_annotated(http: httpx.Client, sdk: OpenAI) -> None:
    talk = coder(http, "Squares?")
    events = talk.stream()
    _, [message], _ = check_ended(talk, events)
    [part] = message["content"]
    value, annotations = part["text"]["value"], part["text"]["annotations"]
    assert value == f"[Squares]({LINK}), and again {LINK}."
    assert [value[each["start_index"] : each["end_index"]] for each in annotations] == [LINK, LINK]
    assert {each["type"] for each in annotations} == {"file_path"}
    [file_id] = {each["file_path"]["file_id"] for each in annotations}
    file = sdk.files.retrieve(file_id)
    assert (file.filename, file.purpose) == ("squares.csv", "assistants_output")
    rows = list(csv.reader(io.StringIO(sdk.files.content(file_id).read().decode())))
    assert rows == [[str(n), str(n * n)] for n in range(5)]
    streamed = [
        each
        for event in named(events, "thread.message.delta")
        for each in event["delta"]["content"][0]["text"].get("annotations", ())
    ]
    assert streamed == [{"index": index, **each} for index, each in enumerate(annotations)]
    talk.say("Again the squares?")
    assert talk.completed() == f"See {LINK}"
    assert talk.messages()[-1]["content"][0]["text"]["annotations"][0]["file_path"] == {"file_id": file_id}


def test_code_and_functions_of_one_turn(http: httpx.Client) -> None:
    talk = coder(http, "Both?", tools=[CODE, function("add")])
    events = talk.stream()
    assert transcript(events)[-2:] == [*WAITS]
    run = talk.run(events[-2].payload["id"])
    calls = calls_of(run)
    assert [each["function"]["name"] for each in calls] == ["add"]
    finished = talk.submitting(run["id"], asked({"add": "7"}, run))
    assert transcript(finished)[-1] == DONE
    [step, _] = talk.steps(run["id"])
    assert [each["type"] for each in step["step_details"]["tool_calls"]] == [
        "code_interpreter",
        "function",
        "code_interpreter",
    ]
    assert [each["outputs"] for each in executed(step)] == [
        [{"type": "logs", "logs": "1\n"}],
        [{"type": "logs", "logs": "2\n"}],
    ]


@pytest.mark.parametrize(
    ("question", "answer", "shown"), [("Malformed?", "Sorry.", "print(1)"), ("Bare?", "Fine.", "print('bare')")]
)
def test_what_models_write_instead_of_json(http: httpx.Client, question: str, answer: str, shown: str) -> None:
    talk = coder(http, question)
    events = talk.stream()
    _, _, [step, _] = check_ended(talk, events)
    assert talk.answer() == answer
    assert executed(step)[0]["input"] == shown
    assert transcript(events)[5].startswith(f"thread.run.step.delta code_interpreter {shown}")


def test_the_tool_can_be_forced(http: httpx.Client, interpreter: Server) -> None:
    talk = coder(http, "Forced")
    assert talk.completed(tool_choice={"type": "code_interpreter"}) == "Forced."
    first, second = played(interpreter)
    assert first["tool_choice"] == {"type": "function", "function": {"name": "code_interpreter"}}
    assert "tool_choice" not in second


# --- Limits and failures


def test_a_call_that_takes_too_long_is_interrupted_and_the_session_stays(http: httpx.Client) -> None:
    talk = coder(http, "Keep a number.")
    talk.completed()
    talk.say("Endless?")
    assert talk.completed() == "It took too long."
    talk.say("And add one.")
    assert talk.completed() == "42."


@pytest.mark.parametrize(("question", "answer"), [("Exhaust it.", "Too much."), ("Quit.", "It ended.")])
def test_python_that_dies_is_told_and_started_again(http: httpx.Client, question: str, answer: str) -> None:
    talk = coder(http, question)
    assert talk.completed() == answer
    talk.say("Value?")
    assert talk.completed() == "It is 42."


def test_endless_output_is_cut_for_the_client_and_for_the_model(http: httpx.Client, interpreter: Server) -> None:
    talk = coder(http, "Loud?")
    assert talk.completed() == "Loud."
    [output] = executed(talk.steps(talk.active())[0])[0]["outputs"]
    assert 2**20 <= len(output["logs"]) < 2**20 + 200
    assert "1951425 more characters of output were left out" in output["logs"]
    [told] = [message["content"] for message in played(interpreter)[-1]["messages"] if message["role"] == "tool"]
    assert len(told) < 80_000
    assert "more characters of output were left out" in told


def test_a_cancelled_run_stops_its_code_and_keeps_what_it_has_printed(http: httpx.Client) -> None:
    talk = coder(http, "For a long time?")
    heard: list[Event] = []
    with talk.streaming() as events:
        for event in events:
            heard.append(event)
            if event.name == "thread.run.step.delta" and "'logs': 'begun" in str(event.payload):
                assert talk.cancel(talk.active()).status_code == 200
    lines = transcript(heard)
    assert lines[-4:] == [
        "thread.run.cancelling cancelling",
        "thread.run.step.cancelled cancelled",
        "thread.run.cancelled cancelled",
        DONE,
    ]
    [step] = talk.steps(talk.active())
    assert executed(step)[0]["outputs"][0]["logs"].startswith("begun\n")
    talk.say("Value?")
    assert talk.completed() == "It is 42."


def _destroy(server: Server, thread_id: str) -> None:
    """Kill the box of a thread from outside."""

    of_thread = "SELECT box FROM sandbox_sessions WHERE thread_id = $1"
    [row] = server.loop.run(execute(server.resources.database, of_thread, thread_id))
    name = row["box"]
    assert server.resources.sandboxes
    if server.resources.sandboxes.engine == "docker":
        subprocess.run(["docker", "kill", name], check=True, capture_output=True)
    else:
        inside = psutil.Process(int(name)).children(recursive=True)
        os.killpg(int(name), signal.SIGKILL)
        psutil.wait_procs(inside, timeout=20)  # they die with it, a moment later


def test_a_sandbox_that_is_killed_is_replaced_and_its_files_are_back(interpreter: Server, http: httpx.Client) -> None:
    file_id = upload(http, b"a,1\n", "sales.csv")
    resources = {"code_interpreter": {"file_ids": [file_id]}}
    talk = coder(http, "Squares?", {"tool_resources": resources})
    talk.completed()
    _destroy(interpreter, talk.thread_id)
    talk.say("Is it there?")
    assert talk.completed() == "It is."
    logs = executed(talk.steps(talk.active())[0])[0]["outputs"][0]["logs"]
    assert logs.startswith("This is a new Python session")
    talk.say("Read it.")
    assert talk.completed() == "Read."


def test_a_sandbox_that_is_killed_in_the_middle_of_a_call_is_told_to_the_model(
    interpreter: Server, http: httpx.Client
) -> None:
    talk = coder(http, "Killed?")
    with talk.streaming() as events:
        next(event for event in events if "'logs': 'begun" in str(event.payload))
        _destroy(interpreter, talk.thread_id)
        rest = list(events)
    assert rest[-2].payload["status"] == "completed"
    assert talk.answer() == "It went."
    [output] = executed(talk.steps(talk.active())[0])[0]["outputs"]
    assert output["logs"].startswith("begun\nThe sandbox was lost")


def test_a_file_of_code_that_the_storage_does_not_take_is_told_to_the_model(
    interpreter: Server, http: httpx.Client
) -> None:
    storage = interpreter.resources.settings.data_dir / "storage"
    storage.rename(storage.with_name("away"))
    storage.write_text("no folder any more")
    try:
        assert coder(http, "Unkept?").completed() == "It could not be kept."
    finally:
        storage.unlink()
        storage.with_name("away").rename(storage)
    assert coder(http, "Squares?").completed().startswith("[Squares]")


def test_the_sandbox_of_a_deleted_thread_ends(interpreter: Server, http: httpx.Client) -> None:
    talk, other = coder(http, "Value?"), coder(http, "Value?")
    assert [talk.completed(), other.completed()] == ["It is 42."] * 2
    sandboxes = interpreter.resources.sandboxes
    assert sandboxes
    assert {talk.thread_id, other.thread_id} <= sandboxes.threads
    sent(http.delete(talk.path))
    interpreter.loop.run(deserted.sweep(interpreter.resources))
    assert talk.thread_id not in sandboxes.threads
    assert other.thread_id in sandboxes.threads


# --- Files


def test_files_of_assistant_thread_and_messages_are_there_by_id_and_name(
    http: httpx.Client, interpreter: Server
) -> None:
    ids = [upload(http, b"a,1\n", name) for name in ("sales.csv", "sales.csv", "../we ird\u202e.txt", ".hidden")]
    talk = coder(
        http,
        "Which files?",
        {"tool_resources": {"code_interpreter": {"file_ids": [ids[1]]}}},
        tool_resources={"code_interpreter": {"file_ids": [ids[0]]}},
    )
    for file_id in ids[2:]:
        attachments = [{"file_id": file_id, "tools": [CODE]}]
        message = {"role": "user", "content": "Which files?", "attachments": attachments}
        sent(http.post(f"{talk.path}/messages", json=message))
    assert talk.completed() == "Those."
    logs = executed(talk.steps(talk.active())[0])[0]["outputs"][0]["logs"]
    names = ["sales.csv", "sales_2.csv", "we ird_.txt", "hidden"]
    assert sorted(eval(logs)) == sorted([*ids, *names])
    system = played(interpreter)[0]["messages"][0]
    assert system["role"] == "system"
    for file_id, name in zip(ids, names, strict=True):
        assert f"- /mnt/data/{name} (also /mnt/data/{file_id}), 4 bytes" in system["content"]


def test_a_file_that_code_changes_comes_back_as_a_new_one(http: httpx.Client, sdk: OpenAI) -> None:
    file_id = upload(http, b"a,1\n", "sales.csv")
    talk = coder(http, "Change it.", {"tool_resources": {"code_interpreter": {"file_ids": [file_id]}}})
    assert talk.completed() == "[Changed](sandbox:/mnt/data/sales.csv)"
    [annotation] = talk.messages()[-1]["content"][0]["text"]["annotations"]
    changed = annotation["file_path"]["file_id"]
    assert changed != file_id
    assert sdk.files.content(changed).read() == b"a,1\nb,2\n"


def test_a_deleted_file_is_left_out(http: httpx.Client) -> None:
    kept, gone = upload(http, b"a,1\n", "sales.csv"), upload(http, b"x", "gone.csv")
    talk = coder(http, "Which files?", {"tool_resources": {"code_interpreter": {"file_ids": [gone, kept]}}})
    sent(http.delete(f"/files/{gone}"))
    assert talk.completed() == "Those."
    logs = executed(talk.steps(talk.active())[0])[0]["outputs"][0]["logs"]
    assert sorted(eval(logs)) == sorted([kept, "sales.csv"])
