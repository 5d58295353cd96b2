"""vLLM: reasoning beside the content, usage in every chunk if asked, errors that come after the status."""

import json

from tests.runs.manners import (
    BERLIN,
    DONE,
    FORCED,
    KOELN,
    Answer,
    Manner,
    Scenario,
    body,
    calling,
    cut,
    refused,
    stream,
)

_SSE = {"content-type": "text/event-stream; charset=utf-8"}
_HEAD = (
    b'data: {"id":"chatcmpl-8b2b91720edd4372b0579e89255b4828","object":"chat.completion.chunk","created":1761900000,'
    b'"model":"Qwen/Qwen3-8B","choices":['
)


def _chunk(delta: bytes, finish_reason: bytes = b"null", rest: bytes = b"") -> bytes:
    ended = b',"stop_reason":null' if finish_reason != b"null" else b""
    choice = b'{"index":0,"delta":' + delta + b',"logprobs":null,"finish_reason":' + finish_reason + ended
    return _HEAD + choice + b',"token_ids":null}]' + rest + b"}\n\n"


_ROLE = _HEAD + (
    b'{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],'
    b'"prompt_token_ids":null}\n\n'
)
_SAID = (_ROLE, _chunk('{"content":"Grüße"}'.encode()), _chunk(b'{"content":", Jane!"}'))
_END = _chunk(b'{"content":""}', b'"stop"')
_USAGE = _HEAD + b'],"usage":{"prompt_tokens":19,"total_tokens":29,"completion_tokens":10}}\n\n'
_WHOLE = stream(*_SAID, _END, _USAGE, DONE, headers=_SSE)

_WHOLE_UNCOUNTED = stream(*_SAID, _END, DONE, headers=_SSE)


def _said(text: str) -> bytes:
    return _chunk(json.dumps({"content": text}, ensure_ascii=False).encode())


def _reasoned(text: str) -> bytes:
    return _chunk(json.dumps({"reasoning": text}).encode())


def _so_far(completion: int) -> bytes:
    return b',"usage":{"prompt_tokens":19,"total_tokens":%d,"completion_tokens":%d}' % (19 + completion, completion)


_USED = (19, 10, 0, 0)
_CALLED = _chunk(b'{"content":""}', b'"tool_calls"')
_THOUGHT = "Jane wants to be greeted.\n"
_BLANK = _chunk(rb'{"content":"\n\n"}')
_IDS = ("chatcmpl-tool-72dc072e706945b6b1bcd82bb722081c", "chatcmpl-tool-b120ab7bad790b75")


def _call(entry: bytes) -> bytes:
    return _chunk(b'{"tool_calls":[' + entry + b"]}")


def _begun(index: int) -> bytes:
    return _call(
        b'{"id":"%b","type":"function","index":%d,"function":{"name":"weather"}}' % (_IDS[index].encode(), index)
    )


def _argued(index: int, arguments: str) -> bytes:
    return _call(b'{"index":%d,"function":{"arguments":%b}}' % (index, json.dumps(arguments).encode()))


_WEATHER = (_begun(0), _argued(0, '{"city": "'), _argued(0, "Berlin"), _argued(0, '"}'))


def _old(number: int, function: bytes) -> bytes:
    """A piece of a call as versions before 0.8.3 send it: each with an id of its own."""
    return _call(b'{"id":"chatcmpl-tool-%032x","type":"function","index":0,"function":%b}' % (number, function))


def _answer(*pieces: bytes) -> Answer:
    return stream(_ROLE, *pieces, DONE, headers=_SSE)


VLLM = Manner(
    "vllm",
    models=body(
        b'{"object":"list","data":[{"id":"Qwen/Qwen3-8B","object":"model","created":1761900000,"owned_by":"vllm",'
        b'"root":"Qwen/Qwen3-8B","parent":null,"max_model_len":40960,"permission":[{"id":"modelperm-0123456789abcdef",'
        b'"object":"model_permission","created":1761900000,"allow_create_engine":false,"allow_sampling":true,'
        b'"allow_logprobs":true,"allow_search_indices":false,"allow_view":true,"allow_fine_tuning":false,'
        b'"organization":"*","group":null,"is_blocking":false}]}]}'
    ),
    model_ids=("Qwen/Qwen3-8B",),
    scenarios=(
        Scenario("Qwen/Qwen3-8B", (_WHOLE,), usage=(19, 10, 0, 0)),
        Scenario(
            "reasons",
            (
                stream(
                    _ROLE,
                    _chunk(b'{"reasoning_content":"Jane wants "}'),
                    _chunk(b'{"reasoning":"to be greeted."}'),
                    _chunk(b'{"reasoning_content":null,"content":"Gr"}'),
                    _chunk('{"reasoning":null,"content":"üße, Jane!"}'.encode()),
                    _END,
                    _USAGE,
                    DONE,
                    headers=_SSE,
                ),
            ),
            usage=(19, 10, 0, 0),
        ),
        Scenario(
            "thinks-in-tags",  # without a parser of its reasoning, and of its usage nothing is told
            (
                _answer(
                    *map(_said, ("<thi", "nk>\nJane wants ", "to be greeted.\n</", "think>", "\n\nGr", "üße, Jane!")),
                    _END,
                ),
            ),
            hidden="\n" + _THOUGHT,
        ),
        cut(
            "thinks-only",
            "max_completion_tokens",
            _answer(_reasoned(_THOUGHT), _chunk(b'{"content":""}', b'"length"')),
            hidden=_THOUGHT,
        ),
        cut(
            "thinks-only-in-tags",
            "max_completion_tokens",
            _answer(_said("<think>\nHm</"), _chunk(b'{"content":""}', b'"length"'), _USAGE),
            usage=_USED,
        ),
        Scenario("thinks-and-says-nothing", (_answer(_reasoned(_THOUGHT), _END),), text="", hidden=_THOUGHT),
        Scenario("says-nothing", (_answer(_END, _USAGE),), text="", usage=_USED),
        calling("calls", _answer(*_WEATHER, _CALLED), _WHOLE_UNCOUNTED, BERLIN, ids=_IDS[:1]),
        calling(
            "Qwen/Qwen3-32B",
            _answer(
                _reasoned(_THOUGHT),
                _BLANK,
                *_WEATHER,
                _said("\n"),
                _begun(1),
                _argued(1, '{"city": "Köln"}'),
                _CALLED,
                _USAGE,
            ),
            _WHOLE,
            BERLIN,
            KOELN,
            usage=_USED,
            ids=_IDS,
        ),
        calling(
            "thinks-in-tags-and-calls",
            _answer(*map(_said, ("<think>", "\n", _THOUGHT, "</thin", "k>", "\n\n")), *_WEATHER, _CALLED),
            _WHOLE_UNCOUNTED,
            BERLIN,
            ids=_IDS[:1],
            hidden="\n" + _THOUGHT,
        ),
        calling(
            "thinks-without-an-end-and-calls",
            _answer(_said("<think>\nHm. "), *_WEATHER, _CALLED),
            _WHOLE_UNCOUNTED,
            BERLIN,
            ids=_IDS[:1],
            hidden="\nHm. ",
        ),
        calling(
            "says-and-calls",
            _answer(_said("Let me see."), _BLANK, *_WEATHER, _CALLED, _USAGE),
            _WHOLE,
            BERLIN,
            usage=_USED,
            said="Let me see.\n\n",
            ids=_IDS[:1],
        ),
        calling(
            "forgets-empty-arguments",  # 0.6.5 left an empty object out
            _answer(
                _call(b'{"id":"%b","type":"function","index":0,"function":{"name":"now"}}' % _IDS[0].encode()),
                _END,
                _USAGE,
            ),
            _WHOLE,
            ("now", ""),
            usage=_USED,
            ids=_IDS[:1],
        ),
        calling(
            "is-of-2024",
            _answer(
                _old(1, b'{"name":"weather"}'),
                _old(2, rb'{"arguments":"{\"city\": \""}'),
                _old(3, rb'{"arguments":"Berlin\"}"}'),
                _chunk(b'{"content":""}', b'"stop"'),
                _USAGE,
            ),
            _WHOLE,
            BERLIN,
            usage=_USED,
            ids=("chatcmpl-tool-" + "1".zfill(32),),
        ),
        calling(
            "is-of-2024-and-has-to-call",
            _answer(
                *(
                    _old(number, b'{"name":"weather","arguments":%b}' % json.dumps(piece).encode())
                    for number, piece in enumerate(("{", '"city": ', '"Berlin"', "}"))
                ),
                _END,
                _USAGE,
            ),
            _WHOLE,
            BERLIN,
            usage=_USED,
            ids=("chatcmpl-tool-" + "0" * 32,),
            asks={"tool_choice": FORCED},
        ),
        Scenario(
            "counts-as-it-goes",
            (
                stream(
                    _chunk(b'{"role":"assistant","content":""}', rest=_so_far(0)),
                    _chunk('{"content":"Grüße"}'.encode(), rest=_so_far(4)),
                    _chunk(b'{"content":", Jane!"}', b'"stop"', _so_far(10)),
                    _USAGE,
                    DONE,
                    headers=_SSE,
                ),
            ),
            usage=(19, 10, 0, 0),
        ),
        Scenario(
            "counts-what-was-cached",
            (
                stream(
                    *_SAID,
                    _END,
                    _HEAD + b'],"usage":{"prompt_tokens":19,"total_tokens":29,"completion_tokens":10,'
                    b'"prompt_tokens_details":{"cached_tokens":16}}}\n\n',
                    DONE,
                    headers=_SSE,
                ),
            ),
            usage=(19, 10, 16, 0),
        ),
        Scenario(
            "ends-before-it-begins",  # an engine that fails at the first token leaves nothing but the end
            (stream(DONE, headers=_SSE), _WHOLE),
            usage=(19, 10, 0, 0),
            heard=2,
        ),
        refused(
            "aborts",  # when the engine is paused or shut down
            stream(*_SAID, _chunk(b'{"content":""}', b'"abort"'), _USAGE, DONE, headers=_SSE),
            "gave up its answer (abort)",
            text="Grüße, Jane!",
            usage=(19, 10, 0, 0),
        ),
        refused(
            "fails-in-the-middle",
            stream(
                *_SAID,
                b'data: {"error": {"message": "EngineCore encountered an issue. See stack trace (above) for the root '
                b'cause.", "type": "InternalServerError", "param": null, "code": 500}}\n\n',
                DONE,
                headers=_SSE,
            ),
            "EngineCore encountered an issue",
            text="Grüße, Jane!",
        ),
        refused(
            "fails-in-the-old-way",
            stream(
                *_SAID,
                b'data: {"object": "error", "message": "Background loop has errored already.", "type": '
                b'"BadRequestError", "param": null, "code": 400}\n\n',
                DONE,
                headers=_SSE,
            ),
            "Background loop has errored already.",
            code="invalid_prompt",
            text="Grüße, Jane!",
        ),
        refused(
            "is-not-served",
            body(
                b'{"error":{"message":"The model `is-not-served` does not exist.","type":"NotFoundError","param":'
                b'"model","code":404}}',
                404,
            ),
            "does not know the model 'is-not-served' (404)",
            "set ADLATUS_MODEL",
        ),
        refused("is-elsewhere", body(b'{"detail":"Not Found"}', 404), "check ADLATUS_MODEL_BASE_URL"),
        refused(
            "has-a-short-context",
            body(
                b'{"object":"error","message":"This model\'s maximum context length is 40960 tokens. However, you '
                b'requested 41000 tokens in the messages, Please reduce the length of the messages.","type":'
                b'"BadRequestError","param":null,"code":400}',
                400,
            ),
            "refused the request (400): This model's maximum context length",
            code="invalid_prompt",
        ),
        refused(
            "validates",
            body(
                b'{"detail":[{"type":"missing","loc":["body","messages"],"msg":"Field required","input":{}}]}',
                422,
            ),
            "refused the request (422)",
            "Field required",
            code="invalid_prompt",
        ),
        refused("wants-a-key", body(b'{"error":"Unauthorized"}', 401), "check ADLATUS_MODEL_API_KEY"),
    ),
)
