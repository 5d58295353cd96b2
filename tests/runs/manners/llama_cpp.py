"""llama.cpp: timings in the last chunks, pings, a 503 while it loads, error events of its own in older builds."""

from tests.runs.manners import BERLIN, DONE, KOELN, Manner, Scenario, body, calling, cut, refused, stream

_JSON = {"content-type": "application/json; charset=utf-8"}
_TIMINGS = (
    b',"timings":{"cache_n":0,"prompt_n":19,"prompt_ms":30.5,"prompt_per_token_ms":1.6,"prompt_per_second":622.9,'
    b'"predicted_n":10,"predicted_ms":120.0,"predicted_per_token_ms":12.0,"predicted_per_second":83.3}'
)


def _event(choices: bytes, rest: bytes = b"") -> bytes:
    return (
        b'data: {"choices":['
        + choices
        + b'],"created":1761900000,"id":"chatcmpl-0123456789ABCDEFabcdef0123456789","model":"gpt-3.5-turbo",'
        b'"system_fingerprint":"b6900-0123abcd","object":"chat.completion.chunk"' + rest + b"}\n\n"
    )


def _chunk(delta: bytes, finish_reason: bytes = b"null", rest: bytes = b"") -> bytes:
    return _event(b'{"finish_reason":' + finish_reason + b',"index":0,"delta":' + delta + b"}", rest)


_ROLE = _chunk(b'{"role":"assistant","content":null}')
_SAID = (_ROLE, _chunk('{"content":"Grüße"}'.encode()), _chunk(b'{"content":", Jane!"}'))
_END = _chunk(b"{}", b'"stop"')
_USAGE = _event(b"", b',"usage":{"completion_tokens":10,"prompt_tokens":19,"total_tokens":29}' + _TIMINGS)
_WHOLE = stream(*_SAID, _END, _USAGE, DONE)
_LOADING = body(b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}', 503, _JSON)

_USED = (19, 10, 0, 0)
_CALLED = _chunk(b"{}", b'"tool_calls"')
_ID = "ABCDEFabcdef0123456789ABCDEFabcd"


def _call(index: int, rest: bytes) -> bytes:
    return _chunk(b'{"tool_calls":[{"index":%d,%b}]}' % (index, rest))


def _begun(index: int, call_id: bytes) -> bytes:
    return _call(index, call_id + rb'"type":"function","function":{"name":"weather","arguments":"{"}')


def _argued(index: int, city: str) -> tuple[bytes, ...]:
    pieces = (r"\"city\":", r" \"" + city, r"\"}")
    return tuple(_call(index, b'"function":{"arguments":"' + piece.encode() + b'"}') for piece in pieces)


_WITH_ID = _begun(0, b'"id":"' + _ID.encode() + b'",')

LLAMA_CPP = Manner(
    "llama_cpp",
    models=body(
        b'{"models":[{"name":"qwen3-8b.gguf","model":"qwen3-8b.gguf","modified_at":"","size":"","digest":"","type":'
        b'"model","description":"","tags":[""],"capabilities":["completion"],"parameters":"","details":{"parent_model":'
        b'"","format":"gguf","family":"","families":[""],"parameter_size":"","quantization_level":""}}],"object":"list",'
        b'"data":[{"id":"qwen3-8b.gguf","object":"model","created":1761900000,"owned_by":"llamacpp","meta":{'
        b'"vocab_type":2,"n_vocab":151936,"n_ctx_train":40960,"n_embd":4096,"n_params":8190735360,"size":5021782016}}]}',
        headers=_JSON,
    ),
    model_ids=("qwen3-8b.gguf",),
    scenarios=(
        Scenario("qwen3-8b", (_WHOLE,), usage=(19, 10, 0, 0)),
        Scenario(
            "reasons",
            (
                stream(
                    _ROLE,
                    _chunk(b'{"reasoning_content":"Jane wants to be greeted."}'),
                    *_SAID[1:],
                    _END,
                    _USAGE,
                    DONE,
                ),
            ),
            usage=(19, 10, 0, 0),
        ),
        Scenario(
            "thinks-in-tags",
            (
                stream(
                    _ROLE,
                    *(
                        _chunk(b'{"content":"' + said + b'"}')
                        for said in (b"<think>", b"Jane", b" wants <", rb"/b> </think>\n", b"</b>")
                    ),
                    *_SAID[1:],
                    _END,
                    DONE,
                ),
            ),
            text="</b>Grüße, Jane!",
            hidden="Jane wants </b> ",
        ),
        cut(
            "thinks-only",
            "max_completion_tokens",
            stream(_ROLE, _chunk(b'{"reasoning_content":"Jane wants"}'), _chunk(b"{}", b'"length"'), _USAGE, DONE),
            usage=_USED,
        ),
        calling(
            "calls-twice",
            stream(
                _ROLE,
                _WITH_ID,
                *_argued(0, "Berlin"),
                _begun(1, b'"id":"' + _ID.lower().encode() + b'",'),
                *_argued(1, "Köln"),
                _CALLED,
                _USAGE,
                DONE,
            ),
            _WHOLE,
            BERLIN,
            KOELN,
            usage=_USED,
            ids=(_ID, _ID.lower()),
        ),
        *(
            calling(
                f"calls-with-{name}-id",  # some templates give none
                stream(
                    _ROLE,
                    *(
                        piece
                        for index, city in enumerate(("Berlin", "Köln"))
                        for piece in (_begun(index, call_id), *_argued(index, city))
                    ),
                    _CALLED,
                    _USAGE,
                    DONE,
                ),
                _WHOLE,
                BERLIN,
                KOELN,
                usage=_USED,
            )
            for name, call_id in (("an-empty", b'"id":"",'), ("no", b""))
        ),
        calling(
            "mumbles-after-its-call",
            stream(
                _ROLE,
                _WITH_ID,
                *_argued(0, "Berlin"),
                _chunk(rb'{"content":"\n\nI have "}'),
                _chunk(b'{"content":"called it."}'),
                _CALLED,
                _USAGE,
                DONE,
            ),
            _WHOLE,
            BERLIN,
            usage=_USED,
            ids=(_ID,),
        ),
        calling(
            "repeats-names",  # as builds of May 2025 do, which have the id in the wrong place
            stream(
                _ROLE,
                *(
                    _call(0, b'"function":{"id":"' + _ID.encode() + b'","name":"weather","arguments":"' + piece + b'"}')
                    for piece in (rb"{\"city", rb"\": \"Ber", rb"lin\"}")
                ),
                _CALLED,
                _USAGE,
                DONE,
            ),
            _WHOLE,
            BERLIN,
            usage=_USED,
        ),
        calling(
            "calls-with-cut-arguments",
            stream(_ROLE, _WITH_ID, _call(0, rb'"function":{"arguments":"\"city\": \"Berl"}'), _CALLED, DONE),
            stream(*_SAID, _END, DONE),
            ("weather", '{"city": "Berl'),
            ids=(_ID,),
        ),
        Scenario(
            "pings",
            (stream(b":\n\n", _ROLE, b":\n\n", *_SAID[1:], b": ping\n\n", _END, _USAGE, DONE),),
            usage=(19, 10, 0, 0),
        ),
        Scenario(
            "counts-in-the-last-choice",  # builds of 2024 have no chunk for the usage alone
            (
                stream(
                    *_SAID,
                    _chunk(
                        b"{}",
                        b'"stop"',
                        b',"usage":{"completion_tokens":10,"prompt_tokens":19,"total_tokens":29}' + _TIMINGS,
                    ),
                    DONE,
                ),
            ),
            usage=(19, 10, 0, 0),
        ),
        Scenario("loads", (*[_LOADING] * 5, _WHOLE), usage=(19, 10, 0, 0), heard=6),
        refused(
            "has-a-short-context",
            body(
                b'{"error":{"code":400,"message":"request (41000 tokens) exceeds the available context size (4096 '
                b'tokens), try increasing it","type":"exceed_context_size_error","n_prompt_tokens":41000,'
                b'"n_ctx":4096}}',
                400,
                _JSON,
            ),
            "exceeds the available context size",
            code="invalid_prompt",
        ),
        refused(
            "fails-in-the-middle",
            stream(*_SAID, b'data: {"error":{"code":500,"message":"Compute error.","type":"server_error"}}\n\n'),
            "Compute error.",
            text="Grüße, Jane!",
        ),
        refused(
            "fails-in-the-old-way",
            stream(
                *_SAID, b'error: {"code":500,"message":"context shift is disabled","type":"server_error"}\n\n', DONE
            ),
            "context shift is disabled",
            text="Grüße, Jane!",
        ),
        refused(
            "finds-the-prompt-too-long-late",
            stream(
                b'data: {"error":{"code":400,"message":"the request exceeds the available context size, try increasing '
                b'it","type":"exceed_context_size_error"}}\n\n'
            ),
            "exceeds the available context size",
            code="invalid_prompt",
        ),
        refused(
            "wants-a-key",
            body(b'{"error":{"message":"Invalid API Key","type":"authentication_error","code":401}}', 401, _JSON),
            "check ADLATUS_MODEL_API_KEY",
        ),
        refused(
            "is-elsewhere",
            body(b'{"error":{"message":"File Not Found","type":"not_found_error","code":404}}', 404, _JSON),
            "nothing at this address (404)",
            "check ADLATUS_MODEL_BASE_URL",
        ),
    ),
)
