"""`adlatus` as a person starts, stops and kills it: real processes, real signals, real data folders."""

import os
import pwd
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from adlatus import __version__
from adlatus.backends.postgres_account import first_unreachable
from adlatus.store import migrate
from tests.faults.processes import Process, adlatus, data_folder, is_running, kill_tree, postmasters, run, serve
from tests.runs.transcripts import DONE, OPENING, Conversation, converse, eventually, sent, speaking, transcript

NOBODY = 65534
COMPLETED = [f"thread.{noun}.completed completed" for noun in ("message", "run.step", "run")]


@pytest.fixture
def fresh() -> Iterator[Path]:
    """A data folder that no server has used."""
    with data_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def used() -> Iterator[Path]:
    with data_folder() as folder:
        with serve(folder) as server:
            assert server.url
            server.stop()
        yield folder


@pytest.fixture
def folder(used: Path) -> Iterator[Path]:
    """A data folder that servers have used; nothing runs there, before the test and after it."""
    yield used
    left = postmasters(used)
    for postmaster in left:
        kill_tree(postmaster)
    assert left == []


@pytest.fixture(scope="module")
def start_s(used: Path) -> float:
    """How long a start takes here and now."""
    begun = time.monotonic()
    with serve(used) as server:
        assert server.url
        took_s = time.monotonic() - begun
        server.stop()
    return took_s


def nothing_is_left(folder: Path, server: Process) -> None:
    assert not is_running(server.pid)
    assert postmasters(folder) == []
    assert not (folder / "postgres-18" / "postmaster.pid").exists()


# --- Up and down


def test_the_banner_says_what_is_used_and_how_to_change_it(folder: Path) -> None:
    with serve(folder) as server:
        url = server.url
        assert f"Adlatus {__version__} serves the Assistants API on {url}/v1" in server.log
        lines = {
            name: line for name in ("data folder", "database", "models", "keys") for line in _lines_of(server.log, name)
        }
        assert str(folder) in lines["data folder"]
        assert "--data-dir or ADLATUS_DATA_DIR" in lines["data folder"]
        assert "embedded PostgreSQL, started" in lines["database"]
        assert "[ADLATUS_DATABASE_URL]" in lines["database"]
        assert "rehearsal: a scripted stand-in, not a language model" in lines["models"]
        assert "[ADLATUS_MODEL_BASE_URL, ADLATUS_MODEL, ADLATUS_MODELS_FILE]" in lines["models"]
        assert "none: any bearer or none is accepted, on loopback only" in lines["keys"]
        assert "[`adlatus keys create` or ADLATUS_API_KEYS]" in lines["keys"]
        assert "Stop with Ctrl-C" in server.log
        components = dict.fromkeys(("database", "storage", "index", "executor"), "ok")
        assert httpx.get(f"{url}/readyz").json()["components"] == components
        with server.client() as http:
            talk = converse(http, "[[say: Hello, Jane!]]")
            assert transcript(talk.stream()) == [*OPENING, *speaking("Hello, Jane!"), *COMPLETED, DONE]
        assert server.stop() == 0
        nothing_is_left(folder, server)
        assert "Traceback" not in server.log


def _lines_of(log: str, name: str) -> list[str]:
    return [line for line in log.splitlines() if line.startswith(f"  {name}  ")]


@pytest.mark.slow
def test_first_use_of_a_folder(fresh: Path) -> None:
    with serve(fresh) as server, server.client() as http:
        assert converse(http, "[[say: Hello!]]").completed() == "Hello!"
        assert server.stop() == 0
        nothing_is_left(fresh, server)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server_and_its_database(folder: Path, number: signal.Signals) -> None:
    with serve(folder) as server:
        assert server.url
        [postmaster] = postmasters(folder)
        assert server.stop(number) == 0
        assert not is_running(postmaster.pid)
        nothing_is_left(folder, server)
        assert "Traceback" not in server.log


def test_the_terminal_and_make_may_both_send_the_same_ctrl_c(folder: Path) -> None:
    with serve(folder) as server:
        assert server.url
        for _ in range(3):
            server.send(signal.SIGINT)
        assert server.ended() == 0
        nothing_is_left(folder, server)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
def test_a_signal_during_start_up_leaves_nothing_behind(
    folder: Path, start_s: float, share: float, number: signal.Signals
) -> None:
    """`share` of the way: from the interpreter's first steps, where nothing of ours hears the signal, to serving."""
    with serve(folder) as server:
        time.sleep(start_s * share)
        code = server.stop(number)
        unheard = {-number, 1, 130}  # Python's own answers, before ours are in place
        assert code == 0 or (code in unheard and "database ready" not in server.log), server.log
        nothing_is_left(folder, server)
        assert code or "Traceback" not in server.log


@pytest.mark.slow
@pytest.mark.parametrize("delay_s", [0.8, 1.2, 1.6, 2.0, 2.5])
def test_a_signal_during_first_use_leaves_a_whole_database_or_none(fresh: Path, delay_s: float) -> None:
    with serve(fresh) as server:
        time.sleep(delay_s)
        assert server.stop() in (0, -signal.SIGTERM)
        assert postmasters(fresh) == []
    with serve(fresh) as server, server.client() as http:
        assert converse(http, "[[say: Hello!]]").completed() == "Hello!"
        assert server.stop() == 0
    assert sorted(path.name for path in fresh.glob("postgres-18*")) == ["postgres-18"]


# --- Stopped while runs go on


@pytest.mark.slow
def test_a_stop_ends_streams_with_an_error_and_the_next_start_completes_their_runs(folder: Path) -> None:
    with serve(folder) as server, server.client() as http:
        talk = converse(http, "[[tokens: 45]] [[pace: 0.15]]")
        events = []
        with talk.streaming() as stream:
            for event in stream:
                events.append(event)
                if len(events) == 9:
                    begun = time.monotonic()
                    server.send(signal.SIGTERM)
        assert server.ended() == 0
        assert time.monotonic() - begun < 30
        nothing_is_left(folder, server)
        assert [event.name for event in events[-2:]] == ["error", "done"]
        assert events[-2].payload["error"]["type"] == "server_error"
        assert "work handed back" in server.log
        assert "Traceback" not in server.log
    with serve(folder) as server, server.client() as http:
        again = Conversation(http, talk.assistant_id, talk.thread_id)
        assert again.run(events[0].payload["id"])["status"] == "in_progress"
        check_completed(again, events[0].payload["id"], words(45))
        assert server.stop() == 0


@pytest.mark.slow
def test_a_run_that_ends_within_the_grace_period_is_heard_out(folder: Path) -> None:
    with serve(folder) as server, server.client() as http:
        talk = converse(http, "[[tokens: 10]] [[pace: 0.1]]")
        events = []
        with talk.streaming() as stream:
            for event in stream:
                events.append(event)
                if len(events) == 8:
                    server.send(signal.SIGTERM)
        assert transcript(events) == [*OPENING, *speaking(words(10)), *COMPLETED, DONE]
        assert server.ended() == 0
        nothing_is_left(folder, server)


def words(count: int) -> str:
    return " ".join(f"word{n}" for n in range(1, count + 1))


def check_completed(talk: Conversation, run_id: str, said: str) -> None:
    """The run completes; its thread has one question and one whole answer, and every step has ended."""
    run = talk.ended(run_id, within_s=60)
    assert run["status"] == "completed", run["last_error"]
    question, answer = talk.messages()
    assert (question["role"], answer["role"]) == ("user", "assistant")
    assert [part["text"]["value"] for part in answer["content"]] == [said]
    assert (answer["status"], answer["run_id"]) == ("completed", run_id)
    assert [step["status"] for step in talk.steps(run_id)] == ["completed"]


# --- Killed


@pytest.mark.slow
def test_a_killed_server_leaves_a_database_that_the_next_one_adopts_and_stops(folder: Path) -> None:
    with serve(folder) as server, server.client() as http:
        talk = converse(http, "[[say: Kept.]]")
        assert talk.completed() == "Kept."
        server.kill()
    [orphan] = postmasters(folder)
    with serve(folder) as server, server.client() as http:
        assert "adopted from an earlier, killed server" in server.log
        assert [process.pid for process in postmasters(folder)] == [orphan.pid]
        assert Conversation(http, talk.assistant_id, talk.thread_id).answer() == "Kept."
        assert server.stop() == 0
        assert not is_running(orphan.pid)
        nothing_is_left(folder, server)


@pytest.mark.slow
def test_when_server_and_database_are_killed_the_data_are_there_after_the_restart(folder: Path) -> None:
    with serve(folder) as server, server.client() as http:
        talk = converse(http, "[[say: Kept.]]")
        assert talk.completed() == "Kept."
        server.kill()
        for postmaster in postmasters(folder):
            kill_tree(postmaster)
    with serve(folder) as server, server.client() as http:
        assert Conversation(http, talk.assistant_id, talk.thread_id).answer() == "Kept."
        assert server.stop() == 0
        nothing_is_left(folder, server)


@pytest.mark.slow
@pytest.mark.parametrize("database_too", [False, True], ids=["server", "server and database"])
def test_a_server_killed_in_the_middle_of_twenty_runs_finishes_them_all(folder: Path, database_too: bool) -> None:
    with serve(folder) as server, server.client() as http:
        prompts = [f"[[say: Run {n}: ]] [[tokens: 30]] [[pace: {0.02 + 0.004 * n:.3f}]]" for n in range(20)]
        talks = [converse(http, prompt) for prompt in prompts]
        runs = [talk.start()["id"] for talk in talks]
        eventually(lambda: all(len(talk.messages()) == 2 for talk in talks[:10]))
        server.kill()
        if database_too:
            for postmaster in postmasters(folder):
                kill_tree(postmaster)
    with serve(folder) as server, server.client() as http:
        for number, (talk, run_id) in enumerate(zip(talks, runs, strict=True)):
            again = Conversation(http, talk.assistant_id, talk.thread_id)
            check_completed(again, run_id, f"Run {number}: {words(30)}")
        assert server.stop() == 0
        nothing_is_left(folder, server)
        assert "Traceback" not in server.log


@pytest.mark.slow
def test_a_server_that_is_killed_again_and_again_still_finishes_its_run(folder: Path) -> None:
    """Twice; the third executor may complete it."""
    with serve(folder) as server, server.client() as http:
        talk = converse(http, "[[tokens: 20]] [[pace: 0.05]]")
        run_id = talk.start()["id"]
        eventually(lambda: len(talk.messages()) == 2)
        server.kill()
    with serve(folder) as server, server.client() as http:
        again = Conversation(http, talk.assistant_id, talk.thread_id)
        eventually(lambda: len(again.messages()) == 2)
        server.kill()
    with serve(folder) as server, server.client() as http:
        check_completed(Conversation(http, talk.assistant_id, talk.thread_id), run_id, words(20))
        assert server.stop() == 0


# --- Refused


def check_refused(code: int, log: str, *expected: str) -> None:
    """Exit code 1 and one line that says why; nothing of Python in it."""
    assert code == 1, log
    [line] = [line for line in log.splitlines() if line.startswith("adlatus: ")]
    for words_ in expected:
        assert words_ in line
    assert "Traceback" not in log


def test_a_second_server_on_the_same_folder_says_so(folder: Path) -> None:
    with serve(folder) as first:
        assert first.url
        with serve(folder) as second:
            check_refused(
                second.ended(), second.log, f"{folder} is in use by the adlatus process {first.pid}", "--data-dir"
            )
        assert httpx.get(f"{first.url}/readyz").status_code == 200
        assert first.stop() == 0


def test_a_taken_port_is_told_before_anything_is_started(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, log = run("serve", "--port", str(port), "--data-dir", str(folder))
    check_refused(code, log, f"cannot listen on 127.0.0.1:{port}: Address already in use", "--port")
    assert postmasters(folder) == []
    assert "database ready" not in log


@pytest.mark.slow
def test_of_two_servers_that_start_together_on_one_port_one_is_told(folder: Path, fresh: Path) -> None:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = str(chosen.getsockname()[1])
    one, other = (("serve", "--port", port, "--data-dir", str(data_dir)) for data_dir in (folder, fresh))
    with adlatus(*one) as first, adlatus(*other) as second:
        [loser] = eventually(lambda: [server for server in (first, second) if server.popen.poll() is not None])
        [winner] = [server for server in (first, second) if server is not loser]
        check_refused(loser.ended(), loser.log, f"cannot listen on 127.0.0.1:{port}")
        assert winner.url.endswith(port)
        assert winner.stop() == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_address_beyond_this_machine_needs_keys(folder: Path, host: str) -> None:
    code, log = run("serve", "--port", "0", "--host", host, "--data-dir", str(folder))
    check_refused(code, log, f"refusing to listen on {host} without API keys", "anyone who reaches it", "ADLATUS_API")
    assert "keys create" in log
    assert postmasters(folder) == []


def test_with_keys_any_address_will_do(folder: Path) -> None:
    with serve(folder, "--host", "0.0.0.0", api_keys="sk-one") as server:
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/v1/models").status_code == 401
        assert httpx.get(f"{url}/v1/models", headers={"Authorization": "Bearer sk-one"}).status_code == 200
        assert "sk-one" not in server.log
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("port", "abc", "ADLATUS_PORT"),
        ("port", "70000", "ADLATUS_PORT"),
        ("api_keys", ":x", "ADLATUS_API_KEYS"),
        ("api_keys", "sk-good,sk-secret:", "ADLATUS_API_KEYS"),
        ("image_urls", "perhaps", "ADLATUS_IMAGE_URLS"),
        ("run_expires_after_s", "0", "ADLATUS_RUN_EXPIRES_AFTER_S"),
        ("model_base_url", "ftp://x", "ADLATUS_MODEL_BASE_URL is not an http(s) address: 'ftp://x'"),
        ("database_url", "mysql://x", "ADLATUS_DATABASE_URL"),
    ],
)
def test_a_bad_setting_is_named(folder: Path, setting: str, value: str, expected: str) -> None:
    code, log = run("serve", "--data-dir", str(folder), **{"port": "0", setting: value})
    check_refused(code, log, expected)
    assert "sk-secret" not in log
    assert postmasters(folder) == []


# --- The other commands


def test_migrate_on_the_embedded_database(folder: Path) -> None:
    code, log = run("migrate", "--data-dir", str(folder))
    assert code == 0, log
    assert f"The database is at revision {migrate.head()}." in log
    assert postmasters(folder) == []


def test_migrate_beside_a_running_server_is_told_so(folder: Path) -> None:
    with serve(folder) as server:
        assert server.url
        code, log = run("migrate", "--data-dir", str(folder))
        check_refused(code, log, f"in use by the adlatus process {server.pid}")
        server.stop()


def test_doctor_looks_at_everything_and_stops_nothing(folder: Path) -> None:
    code, log = run("doctor", "--data-dir", str(folder), port="1")
    assert code == 0, log
    assert "embedded, not running" in log
    assert "none: degraded, files are found by words only" in log
    with serve(folder) as server:
        port = str(httpx.URL(server.url).port)
        code, log = run("doctor", "--data-dir", str(folder), port=port)
        assert code == 0, log
        assert f"at revision {migrate.head()}" in log
        assert "is ready" in log
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"model_base_url": "http://127.0.0.1:1/v1"}, "could not be reached"),
        ({"model_base_url": "ftp://x"}, "model"),
        ({"database_url": "postgresql://nobody@127.0.0.1:1/none"}, "cannot connect"),
        ({"qdrant_url": "http://127.0.0.1:1"}, "could not be reached: check that it runs, and ADLATUS_QDRANT_URL"),
        ({"qdrant_url": "localhost"}, "ADLATUS_QDRANT_URL"),
        ({"storage_url": "file:///dev/null/folder"}, "cannot keep files in /dev/null/folder"),
        ({"storage_url": "ftp://x"}, "'ftp' is no kind of storage"),
        ({"embedding_base_url": "http://127.0.0.1:1/v1", "embedding_model": "m"}, "and ADLATUS_EMBEDDING_BASE_URL."),
        ({"embedding_base_url": "http://127.0.0.1:1/v1"}, "ADLATUS_EMBEDDING_BASE_URL needs ADLATUS_EMBEDDING_MODEL"),
    ],
    ids=[
        "no model there",
        "no address",
        "no database there",
        "no index there",
        "no address of an index",
        "no folder there",
        "no storage",
        "no embeddings there",
        "no name of a model",
    ],
)
def test_doctor_fails_where_a_configured_component_is_down(
    folder: Path, settings: dict[str, str], expected: str
) -> None:
    code, log = run("doctor", "--data-dir", str(folder), **{"port": "1", **settings})
    assert code == 1, log
    assert "FAILS" in log
    assert expected in log
    assert "Traceback" not in log


def test_doctor_asks_every_endpoint_of_a_routing_table_for_its_models(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "models.toml"
    table.write_text(
        '[endpoints.gone]\nbase_url = "http://127.0.0.1:1/v1"\napi_key = "sk-secret"\n'
        '[models.a]\nendpoint = "gone"\n[models.b]\nendpoint = "rehearsal"\nmodel = "not-there"\n',
        "utf-8",
    )
    code, log = run("doctor", "--data-dir", str(folder), port="1", models_file=str(table))
    assert code == 1, log
    assert "could not be reached: check that it runs, and endpoints.gone.base_url in ADLATUS_MODELS_FILE." in log
    assert "no model 'not-there' there" in log
    assert "It offers: rehearsal" in log
    assert "sk-secret" not in log
    table.write_text('[models.a]\nendpoint = "nowhere"\n', "utf-8")
    for command in ("doctor", "serve"):
        code, log = run(command, "--data-dir", str(folder), port="1", models_file=str(table))
        assert code == 1, log
        assert "models.a.endpoint: there is no endpoint 'nowhere', known are: none." in log
        assert "Traceback" not in log


def test_a_worker_needs_a_database_that_it_can_share(folder: Path) -> None:
    code, log = run("worker", "--data-dir", str(folder))
    check_refused(code, log, "ADLATUS_DATABASE_URL", "`adlatus serve` executes the runs")


# --- On a database of one's own


def test_a_database_of_ones_own_is_migrated_by_hand(folder: Path, new_database: Callable[..., str]) -> None:
    database_url = new_database(empty=True)
    with serve(folder, database_url=database_url) as server:
        check_refused(server.ended(), server.log, "is at revision none", "run `adlatus migrate`")
    code, log = run("migrate", "--data-dir", str(folder), database_url=database_url)
    assert code == 0, log
    with serve(folder, database_url=database_url) as server, server.client() as http:
        assert converse(http, "[[say: Hello!]]").completed() == "Hello!"
        assert "PostgreSQL at" in server.log
        assert postmasters(folder) == []
        assert server.stop() == 0


@pytest.mark.slow
def test_a_server_without_an_executor_and_a_worker_share_a_database(
    folder: Path, new_database: Callable[..., str]
) -> None:
    database_url = new_database()
    with serve(folder, "--no-executor", database_url=database_url) as server, server.client() as http:
        assert "This process executes no runs: start `adlatus worker` beside it." in server.log
        waiting = converse(http, "[[say: I waited.]]")
        run_id = waiting.start()["id"]
        with adlatus("worker", "--data-dir", str(folder), "--concurrency", "4", database_url=database_url) as worker:
            assert waiting.ended(run_id)["status"] == "completed"
            talk = converse(http, "[[tokens: 20]] [[pace: 0.02]]")
            assert transcript(talk.stream()) == [*OPENING, *speaking(words(20)), *COMPLETED, DONE]
            stalled = converse(http, "[[tokens: 45]] [[pace: 0.15]]")
            left = stalled.start()["id"]
            eventually(lambda: len(stalled.messages()) == 2)
            assert worker.stop() == 0
            assert "work handed back" in worker.log
            assert "Traceback" not in worker.log
        assert stalled.run(left)["status"] == "in_progress"
        with adlatus("worker", "--data-dir", str(folder), database_url=database_url) as worker:
            check_completed(stalled, left, words(45))
            assert worker.stop(signal.SIGINT) == 0
        assert server.stop() == 0


@pytest.mark.slow
def test_the_runs_of_a_worker_that_is_killed_are_finished_by_another(
    folder: Path, new_database: Callable[..., str]
) -> None:
    """After its leases have run out: 15 seconds."""
    settings: dict[str, Any] = {"database_url": new_database()}
    with serve(folder, "--no-executor", **settings) as server, server.client() as http:
        with adlatus("worker", "--data-dir", str(folder), **settings) as worker:
            talk = converse(http, "[[tokens: 30]] [[pace: 0.1]]")
            run_id = talk.start()["id"]
            eventually(lambda: len(talk.messages()) == 2)
            worker.kill()
        with adlatus("worker", "--data-dir", str(folder), **settings) as worker:
            check_completed(talk, run_id, words(30))
            assert worker.stop() == 0
        assert server.stop() == 0


# --- As an ordinary user


@pytest.mark.slow
def test_an_ordinary_user_serves_too(fresh: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("these tests are an ordinary user's already")
    try:
        uid, gid = pwd.getpwuid(NOBODY)[2:4]
    except KeyError:
        pytest.skip(f"no user has the id {NOBODY}")
    for needed in (Path(sys.executable).resolve(), Path(sys.prefix), Path(migrate.__file__)):
        if closed := first_unreachable(needed.parent, uid, gid):
            pytest.skip(f"an ordinary user cannot pass {closed} on the way to {needed}")
    os.chown(fresh.parent, uid, gid)
    with serve(fresh, user=NOBODY) as server, server.client() as http:
        [postmaster] = postmasters(fresh)
        assert postmaster.uids().real == NOBODY
        assert sent(http.get("/models"))["data"]
        assert converse(http, "[[say: Hello!]]").completed() == "Hello!"
        server.kill()
    with serve(fresh, user=NOBODY) as server:
        assert server.url
        assert "adopted" in server.log
        assert server.stop() == 0
        nothing_is_left(fresh, server)
