"""The routing table as it is written, and what is said of its faults."""

from pathlib import Path

import pytest

from adlatus.backends.models_file import MOST_BYTES, REHEARSAL, checked_url, of_images, read
from adlatus.backends.routing import Endpoint, Route, Routing
from adlatus.errors import StartupError

GOOD = """
[endpoints.ollama]
base_url = "http://localhost:11434/v1"
timeout_s = 300
image_urls = "forward"

[endpoints.openai]
base_url = "https://api.openai.com/v1"
api_key_env = "SOME_KEY"

[endpoints.azure]
base_url = "https://x.openai.azure.com/openai/deployments/{model}?api-version=2024-10-21"
api_key = "secret"
api_key_header = "api-key"
headers = { "x-team" = "blue" }

[models."gpt-4o"]
endpoint = "ollama"
model = "qwen3:32b"
context_window = 32768
vision = false
parameters = { temperature = 0.6 }
omit = ["stream_options"]
rename = { max_completion_tokens = "max_tokens" }

[models."gpt-4*"]
endpoint = "openai"

[models.deployed]
endpoint = "azure"

[models."*"]
endpoint = "rehearsal"
"""
STAND_IN = Endpoint(REHEARSAL, "http://127.0.0.1:1/v1")


def routes(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> list[Route]:
    path = tmp_path / "models.toml"
    path.write_text(text, "utf-8")
    table = read(path)
    assert table.wants_rehearsal == ("rehearsal" in text)
    stand_in = STAND_IN if table.wants_rehearsal else None
    return table.routes(environ or {}, timeout_s=120, image_urls="auto", rehearsal=stand_in)


def test_a_table_becomes_routes_in_its_order(tmp_path: Path) -> None:
    alias, pattern, deployed, rest = routes(tmp_path, GOOD, {"SOME_KEY": "sk-1"})
    assert alias == Route(
        "gpt-4o",
        alias.endpoint,
        "qwen3:32b",
        context_window=32768,
        vision=False,
        parameters={"temperature": 0.6},
        omit=("stream_options",),
        rename={"max_completion_tokens": "max_tokens"},
    )
    assert (alias.endpoint.timeout_s, alias.endpoint.image_urls, alias.endpoint.headers) == (300, "forward", {})
    assert (pattern.model, pattern.endpoint.headers) == ("gpt-4*", {"authorization": "Bearer sk-1"})
    assert (pattern.endpoint.timeout_s, pattern.endpoint.image_urls) == (120, "forward")
    assert deployed.endpoint.image_urls == "inline"
    assert deployed.endpoint.headers == {"x-team": "blue", "api-key": "secret"}
    assert rest.endpoint is STAND_IN


def test_names_pass_through_patterns(tmp_path: Path) -> None:
    routing = Routing(routes(tmp_path, GOOD, {"SOME_KEY": "sk-1"}), None)
    found = {name: routing.resolve(name) for name in ("gpt-4.1", "deployed", "anything")}
    assert [route.model for route in found.values() if route] == ["gpt-4.1", "deployed", "anything"]


def test_no_secret_is_in_the_representation(tmp_path: Path) -> None:
    assert "secret" not in repr(routes(tmp_path, GOOD, {"SOME_KEY": "sk-secret"}))


MODEL = '[models.a]\nendpoint = "e"\n'
ENDPOINT = '[endpoints.e]\nbase_url = "http://h/v1"\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("models = ", "is not TOML: "),
        ("", "models: is missing."),
        ("[models]", "models: dictionary should have at least 1 item"),
        (MODEL, "models.a.endpoint: there is no endpoint 'e', known are: none."),
        (ENDPOINT + MODEL.replace('"e"', '"f"'), "there is no endpoint 'f', known are: e."),
        (ENDPOINT + "[models.a]\n", "models.a.endpoint: is missing."),
        ("[endpoints.e]\n" + MODEL, "endpoints.e.base_url: is missing."),
        (ENDPOINT + MODEL + 'colour = "red"', "models.a.colour: is not known here."),
        (ENDPOINT + '[models.gpt-4.1]\nendpoint = "e"', "models.gpt-4.1: is not known here (a name with dots needs "),
        (ENDPOINT + MODEL + "context_window = 0", "models.a.context_window: input should be greater than or equal"),
        (ENDPOINT + MODEL + 'vision = "yes"', "models.a.vision: input should be a valid boolean."),
        (ENDPOINT + MODEL + 'model = "*"', "models.a.model: a '*' here needs one in the name of the entry too."),
        (ENDPOINT + '[models."*a*"]\nendpoint = "e"', "models.\"*a*\": a name may hold one '*' only."),
        (ENDPOINT + MODEL + "parameters = { stream = false }", "models.a: 'stream' is the server's own, leave it out."),
        (ENDPOINT + MODEL + 'omit = ["messages"]', "models.a: 'messages' is the server's own, leave it out."),
        (ENDPOINT + "timeout_s = 0\n" + MODEL, "endpoints.e.timeout_s: input should be greater than 0."),
        (
            ENDPOINT + 'image_urls = "auto"\n' + MODEL,
            "endpoints.e.image_urls: input should be 'forward', 'inline' or 're",
        ),
        (ENDPOINT + 'api_key_env = "NO_KEY"\n' + MODEL, "endpoints.e.api_key_env: NO_KEY is not set in the environm"),
        (ENDPOINT + 'api_key = "k"\napi_key_env = "K"\n' + MODEL, "endpoints.e: give either api_key or api_key_env."),
        ('[endpoints.e]\nbase_url = "localhost:11434"\n' + MODEL, "is not an http(s) address: 'localhost:11434'."),
        (ENDPOINT + "timeout_s = inf\n" + MODEL, "endpoints.e.timeout_s: input should be a finite number."),
        (ENDPOINT + MODEL + 'rename = { user = "model" }', "models.a: 'model' is the server's own, leave it out."),
        (ENDPOINT + MODEL + f"parameters = {{ seed = {2**70} }}", "models.a.parameters: cannot be written as JSON ("),
        (ENDPOINT + f"timeout_s = {'9' * 5000}\n" + MODEL, "is not TOML: "),
        (ENDPOINT + "timeout_s = " + "[" * 5000 + "\n" + MODEL, "is not TOML: "),
        (ENDPOINT + 'api_key = "hidden\\n"\n' + MODEL, "endpoints.e: the header 'authorization' or its value has a "),
        (ENDPOINT + 'headers = { "a b" = "hidden" }\n' + MODEL, "endpoints.e: the header 'a b' or its value has a "),
        ('[endpoints.e]\nbase_url = "http://{model}.h/v1"\n' + MODEL, "has {model} in its host, where the names of "),
        ('[endpoints.e]\nbase_url = "htp://me:hidden@h/v1"\n' + MODEL, "is not an http(s) address. It usually ends"),
        ('[endpoints.e]\nbase_url = "http://[::1/v1"\n' + MODEL, "is not an http(s) address: "),
    ],
)
def test_a_fault_is_told_with_its_place_and_what_to_do(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(StartupError) as refused:
        routes(tmp_path, text)
    assert str(refused.value).startswith("ADLATUS_MODELS_FILE (")
    assert problem in str(refused.value)
    assert "hidden" not in str(refused.value)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"cannot read .*nothing\.toml: No such file"):
        read(tmp_path / "nothing.toml")
    (tmp_path / "latin.toml").write_bytes(b"\xff")
    with pytest.raises(StartupError, match="is not TOML"):
        read(tmp_path / "latin.toml")
    (tmp_path / "long.toml").write_bytes(b"#" * (MOST_BYTES + 1))
    with pytest.raises(StartupError, match="no table of models"):
        read(tmp_path / "long.toml")
    with pytest.raises(StartupError, match=r"cannot read .*: Is a directory"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("image_urls", "base_url", "meant"),
    [
        ("auto", "https://api.openai.com/v1", "forward"),
        ("auto", "https://api.openai.com.evil.example/v1", "inline"),
        ("auto", "http://localhost:11434/v1", "inline"),
        ("forward", "http://localhost:11434/v1", "forward"),
        ("refuse", "https://api.openai.com/v1", "refuse"),
    ],
)
def test_links_go_to_openai_unless_it_is_said_otherwise(image_urls: str, base_url: str, meant: str) -> None:
    assert of_images(image_urls, checked_url(base_url, "base_url")) == meant  # type: ignore[arg-type]
