"""What a model name means."""

import pytest

from adlatus.backends.routing import LOCAL, Endpoint, Route, Routing
from adlatus.errors import InvalidRequest

OLLAMA = Endpoint("ollama", "http://localhost:11434/v1")
OPENAI = Endpoint("openai", "https://api.openai.com/v1")
SCHEMA = {"type": "json_schema", "json_schema": {"name": "n"}}


def meant(routing: Routing, name: str, **how: bool) -> tuple[str, str] | None:
    route = routing.resolve(name, **how)
    return (route.endpoint.name, route.model) if route else None


TABLE = [
    Route("gpt-4*", OPENAI, "gpt-4*"),
    Route("gpt-4o", OLLAMA, "qwen3:32b"),
    Route("gpt-*", OLLAMA, "other"),
    Route("openai/*", OPENAI, "*"),
    Route("*-embed", OLLAMA, "nomic-*:latest"),
]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt-4o", ("ollama", "qwen3:32b")),
        ("gpt-4", ("openai", "gpt-4")),
        ("gpt-4.1-mini", ("openai", "gpt-4.1-mini")),
        ("gpt-5", ("ollama", "other")),
        ("openai/o3", ("openai", "o3")),
        ("text-embed", ("ollama", "nomic-text:latest")),
        ("claude", None),
        ("GPT-4o", None),
        ("my gpt-4", None),
        ("gpt-4\n", ("openai", "gpt-4\n")),
    ],
)
def test_an_exact_name_wins_then_the_first_pattern(name: str, expected: tuple[str, str] | None) -> None:
    assert meant(Routing(TABLE, None), name) == expected


def test_what_is_not_routed_goes_to_the_default() -> None:
    routing = Routing(TABLE, Route("*", OLLAMA))
    assert meant(routing, "claude") == ("ollama", "claude")
    assert meant(routing, "a*b") == ("ollama", "a*b")


def test_one_model_stands_in_for_those_that_generate_text_only() -> None:
    routing = Routing([], Route("*", OLLAMA, "qwen3:32b"), Route("*", OLLAMA))
    assert meant(routing, "gpt-4o") == ("ollama", "qwen3:32b")
    assert meant(routing, "nomic-embed-text", generates=False) == ("ollama", "nomic-embed-text")


def test_names_of_embedding_models_have_places_of_their_own_between_the_table_and_the_default() -> None:
    embeddings = [Route("mini", LOCAL, "mini"), Route("*", OPENAI, "small")]
    routing = Routing(TABLE, Route("*", OLLAMA), embeddings=embeddings)
    names = ("text-embed", "mini", "anything", "a" * 600)
    routes = [routing.resolve_embedding(name) for name in names]
    assert [route and (route.endpoint.name, route.model) for route in routes] == [
        ("ollama", "nomic-text:latest"),
        ("local", "mini"),
        ("openai", "small"),
        None,
    ]
    assert meant(routing, "mini") == ("ollama", "mini")
    assert routing.addressed == routing.endpoints == (OPENAI, OLLAMA)
    assert [route.pattern for route in routing.aliases] == ["gpt-4o", "mini"]


def test_each_endpoint_is_known_once() -> None:
    assert Routing(TABLE, Route("*", OLLAMA)).endpoints == (OPENAI, OLLAMA)


def test_endpoints_that_share_a_name_are_not_taken_for_one_another() -> None:
    other = Endpoint("ollama", "http://localhost:11434/v1", headers={"authorization": "Bearer other"})
    assert Routing([Route("a", OLLAMA), Route("b", other)], None).endpoints == (OLLAMA, other)


def test_a_request_is_adapted_to_its_upstream() -> None:
    route = Route(
        "gpt-4o",
        OLLAMA,
        "qwen3:32b",
        reasoning=False,
        parameters={"temperature": 0.6, "top_k": 20},
        omit=("stream_options",),
        rename={"max_completion_tokens": "max_tokens"},
    )
    asked = {
        "model": "gpt-4o",
        "temperature": 0.2,
        "reasoning_effort": "high",
        "max_completion_tokens": 300,
        "stream_options": {"include_usage": True},
    }
    assert route.adapted(asked) == {"model": "qwen3:32b", "temperature": 0.2, "top_k": 20, "max_tokens": 300}


@pytest.mark.parametrize(
    ("base_url", "address"),
    [
        ("http://h/v1", "http://h/v1/embeddings"),
        ("http://h/v1/", "http://h/v1/embeddings"),
        ("http://h", "http://h/embeddings"),
        ("http://h/v1?api-version=1", "http://h/v1/embeddings?api-version=1"),
        (
            "https://h/openai/deployments/{model}?api-version=2024-10-21",
            "https://h/openai/deployments/a%2Fb%3Fc/embeddings?api-version=2024-10-21",
        ),
    ],
)
def test_the_address_of_an_endpoint_may_name_the_model_and_hold_a_query(base_url: str, address: str) -> None:
    assert str(Endpoint("e", base_url).url("/embeddings", "a/b?c")) == address


LIMITED = Routing(
    [
        Route("embed", OLLAMA, chat=False),
        Route("plain", OLLAMA, tools=False, json_schema=False),
    ],
    None,
)


@pytest.mark.parametrize(
    ("model", "asked", "message", "param", "code"),
    [
        ("nope", {}, "The requested model 'nope' does not exist.", "model", "model_not_found"),
        (
            "embed",
            {},
            "The requested model 'embed' cannot be used with the Assistants API.",
            "model",
            "unsupported_model",
        ),
        (
            "plain",
            {"tools": [{"type": "code_interpreter"}]},
            "Invalid parameter: 'tools' are not supported with this model: 'plain'.",
            "tools",
            "unsupported_value",
        ),
        (
            "plain",
            {"response_format": SCHEMA},
            "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model: 'plain'.",
            "response_format",
            "unsupported_value",
        ),
    ],
)
def test_assistants_are_refused_what_their_model_cannot_do(
    model: str, asked: dict[str, object], message: str, param: str, code: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        LIMITED.for_assistants(model, **asked)  # type: ignore[arg-type]
    assert (refused.value.message, refused.value.param, refused.value.code) == (message, param, code)


def test_assistants_get_what_their_model_can_do() -> None:
    assert LIMITED.for_assistants("plain", response_format={"type": "json_object"}).endpoint is OLLAMA
    assert Routing(TABLE, None).for_assistants("gpt-4o", tools=[{"type": "file_search"}], response_format=SCHEMA)


def test_no_name_leads_to_another_address_than_that_of_its_model() -> None:
    azure = Endpoint("azure", "https://h/deployments/{model}/x?v=1")
    routing = Routing([Route("azure/*", azure, "*")], Route("*", OLLAMA))
    for name in ("azure/", "azure/.", "azure/..", "azure/" + "a" * 600, "a" * 600):
        assert routing.resolve(name) is None
    assert meant(routing, "azure/...") == ("azure", "...")
    assert meant(routing, "..") == ("ollama", "..")
    assert azure.url("/y", "../a?b#c%2f\n").raw_path == b"/deployments/..%2Fa%3Fb%23c%252f%0A/x/y?v=1"


def test_an_address_is_shown_without_its_secrets() -> None:
    endpoint = Endpoint("e", "https://me:hidden@h:1/v1?key=hidden")
    assert endpoint.shown == "https://h:1/v1"
    assert "hidden" not in repr(endpoint)
