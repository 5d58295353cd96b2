"""Ollama: the role in every chunk, a fixed fingerprint, errors in three shapes, a list that may be null."""

from tests.runs.manners import (
    BERLIN,
    DONE,
    KOELN,
    OPENAI_PARAMETERS,
    Manner,
    Scenario,
    body,
    calling,
    cut,
    refused,
    stream,
)


def _chunk(delta: bytes, finish_reason: bytes = b"null") -> bytes:
    return _event(b'{"index":0,"delta":' + delta + b',"finish_reason":' + finish_reason + b"}")


def _event(choices: bytes, usage: bytes = b"", model: bytes = b"qwen3:8b") -> bytes:
    return (
        b'data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1761900000,"model":"'
        + model
        + b'","system_fingerprint":"fp_ollama","choices":['
        + choices
        + b"]"
        + usage
        + b"}\n\n"
    )


_SAID = (
    _chunk('{"role":"assistant","content":"Grüße"}'.encode()),
    _chunk(b'{"role":"assistant","content":", Jane!"}'),
)
_END = _chunk(b'{"role":"assistant","content":""}', b'"stop"')
_USAGE = _event(b"", b',"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29}')
_WHOLE = stream(*_SAID, _END, _USAGE, DONE)
_USED = (19, 10, 0, 0)
_CALLED = _chunk(b'{"role":"assistant","content":""}', b'"tool_calls"')
_IN_BERLIN = rb'"function":{"name":"weather","arguments":"{\"city\": \"Berlin\"}"}'
_IN_KOELN = '"function":{"name":"weather","arguments":"{\\"city\\": \\"Köln\\"}"}'.encode()
_FIRST = b'{"id":"call_hk81qg8b","index":0,"type":"function",' + _IN_BERLIN + b"}"
_SECOND = b'{"id":"call_rk2xye1l","index":%d,"type":"function",' + _IN_KOELN + b"}"
_IDS = ("call_hk81qg8b", "call_rk2xye1l")


def _calls(*entries: bytes) -> bytes:
    return _chunk(b'{"role":"assistant","content":"","tool_calls":[' + b",".join(entries) + b"]}")


def _thinks(text: bytes) -> bytes:
    return _chunk(b'{"role":"assistant","content":"","reasoning":"' + text + b'"}')


_NOTHING = b'{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}'

OLLAMA = Manner(
    "ollama",
    models=body(
        b'{"object":"list","data":[{"id":"qwen3:8b","object":"model","created":1761900000,"owned_by":"library"}]}\n'
    ),
    model_ids=("qwen3:8b",),
    # it takes what it does not know for nothing: an answer may become longer than a run allows
    accepts=OPENAI_PARAMETERS - {"max_completion_tokens", "parallel_tool_calls", "tool_choice"},
    ignores=frozenset({"max_completion_tokens", "parallel_tool_calls", "tool_choice"}),
    scenarios=(
        Scenario("qwen3:8b", (stream(*_SAID, _END, _USAGE, DONE),), usage=(19, 10, 0, 0)),
        Scenario(
            "reasons",
            (
                stream(
                    _chunk(b'{"role":"assistant","content":"","reasoning":"Jane wants to be greeted."}'),
                    *_SAID,
                    _END,
                    _USAGE,
                    DONE,
                ),
            ),
            usage=(19, 10, 0, 0),
        ),
        Scenario(
            "deepseek-r1:7b",  # before 0.9 the reasoning was in the content
            (
                stream(
                    *(
                        _chunk(b'{"role":"assistant","content":"' + said + b'"}')
                        for said in (b"\\u003cthink\\u003e", rb"\n\n", b"\\u003c/think\\u003e", rb"\n\n")
                    ),
                    *_SAID,
                    _END,
                    _USAGE,
                    DONE,
                ),
            ),
            usage=_USED,
        ),
        cut(
            "thinks-only",
            "max_completion_tokens",
            stream(_thinks(b"Jane wants"), _chunk(b'{"role":"assistant","content":""}', b'"length"'), _USAGE, DONE),
            usage=_USED,
        ),
        calling("calls", stream(_calls(_FIRST), _CALLED, _USAGE, DONE), _WHOLE, BERLIN, usage=_USED, ids=_IDS[:1]),
        calling(
            "thinks-and-calls-twice",
            stream(
                _thinks(b"Jane wants "), _thinks(b"both."), _calls(_FIRST), _calls(_SECOND % 1), _CALLED, _USAGE, DONE
            ),
            _WHOLE,
            BERLIN,
            KOELN,
            usage=_USED,
            ids=_IDS,
        ),
        calling(
            "llama3.1",  # as of 2024: every index is 0, and the end is `stop`
            stream(_calls(_FIRST), _calls(_SECOND % 0), _END, _USAGE, DONE),
            _WHOLE,
            BERLIN,
            KOELN,
            usage=_USED,
            ids=_IDS,
        ),
        calling(
            "calls-both-at-once",
            stream(_calls(_FIRST, _SECOND % 0), _END, DONE),
            stream(*_SAID, _END, DONE),
            BERLIN,
            KOELN,
            ids=_IDS,
        ),
        calling(
            "overlooks-that-one-was-enough",
            stream(_calls(_FIRST), _calls(_SECOND % 1), _CALLED, _USAGE, DONE),
            _WHOLE,
            BERLIN,
            usage=_USED,
            ids=_IDS[:1],
            asks={"parallel_tool_calls": False, "tool_choice": "required"},
        ),
        Scenario(
            "comes-at-once",
            (stream(_chunk('{"role":"assistant","content":"Grüße, Jane!"}'.encode(), b'"stop"') + _USAGE + DONE),),
            usage=(19, 10, 0, 0),
        ),
        Scenario(
            "is-of-2024",  # no usage, and an empty finish reason before the last
            (
                stream(
                    _chunk('{"role":"assistant","content":"Grüße, Jane!"}'.encode(), b'""'),
                    _chunk(b'{"role":"assistant","content":""}', b'"length"'),
                    DONE,
                ),
            ),
            status="incomplete",
            reason="max_completion_tokens",
        ),
        refused(
            "is-not-pulled",
            body(
                b'{"error":{"message":"model \\"is-not-pulled\\" not found, try pulling it first","type":'
                b'"not_found_error","param":null,"code":null}}\n',
                404,
            ),
            "does not know the model 'is-not-pulled' (404)",
            "try pulling it first",
        ),
        refused(
            "is-elsewhere",
            body(b"404 page not found", 404, {"content-type": "text/plain"}),
            "nothing at this address (404)",
            "check ADLATUS_MODEL_BASE_URL",
        ),
        refused(
            "does-not-think",
            body(
                b'{"error":{"message":"\\"does-not-think\\" does not support thinking","type":"invalid_request_error",'
                b'"param":null,"code":null}}\n',
                400,
            ),
            "does not support thinking",
            code="invalid_prompt",
        ),
        refused(
            "fails-with-a-string",
            stream(*_SAID, b'data: {"error":"llama runner process has terminated"}\n\n'),
            "llama runner process has terminated",
            text="Grüße, Jane!",
        ),
        refused(
            "fails-without-a-prefix",
            stream(
                *_SAID,
                b'{"error":{"message":"an error was encountered while running the model","type":"api_error",'
                b'"param":null,"code":null}}\n',
            ),
            "an error was encountered while running the model",
            text="Grüße, Jane!",
        ),
        refused(
            "fails-without-a-word",  # the error goes through the shape of a chunk, and nothing is left of it
            stream(*_SAID, _event(_NOTHING, model=b"")),
            "broke off in the middle of its answer",
            text="Grüße, Jane!",
        ),
    ),
)
