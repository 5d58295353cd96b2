"""DeepSeek: reasoning beside an empty content, usage in the last choice."""

from tests.runs.manners import BERLIN, DONE, Manner, Scenario, body, calling, cut, stream


def _chunk(delta: bytes, finish_reason: bytes = b"null", rest: bytes = b"") -> bytes:
    return (
        b'data: {"id":"5e5d8c1e-0000-4000-8000-0123456789ab","object":"chat.completion.chunk","created":1761900000,'
        b'"model":"deepseek-reasoner","system_fingerprint":"fp_0123456789_prod0820_fp8_kvcache","choices":[{"index":0,'
        b'"delta":' + delta + b',"logprobs":null,"finish_reason":' + finish_reason + b"}]" + rest + b"}\n\n"
    )


_COUNTED = (
    b',"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":8},'
    b'"completion_tokens_details":{"reasoning_tokens":4},"prompt_cache_hit_tokens":8,"prompt_cache_miss_tokens":11}'
)
_USED = (19, 10, 8, 4)
_THOUGHT = (
    _chunk(b'{"role":"assistant","content":null,"reasoning_content":""}'),
    _chunk(b'{"content":null,"reasoning_content":"Jane wants"}'),
    _chunk(b'{"content":null,"reasoning_content":" to be greeted."}'),
)
_WHOLE = stream(
    *_THOUGHT,
    _chunk('{"content":"Grüße","reasoning_content":null}'.encode()),
    _chunk(b'{"content":", Jane!","reasoning_content":null}'),
    _chunk(b'{"content":"","reasoning_content":null}', b'"stop"', _COUNTED),
    DONE,
)

DEEPSEEK = Manner(
    "deepseek",
    models=body(
        b'{"object":"list","data":[{"id":"deepseek-chat","object":"model","owned_by":"deepseek"},{"id":'
        b'"deepseek-reasoner","object":"model","owned_by":"deepseek"}]}'
    ),
    model_ids=("deepseek-chat", "deepseek-reasoner"),
    scenarios=(
        Scenario("deepseek-reasoner", (_WHOLE,), usage=_USED),
        Scenario("keeps-alive", (stream(b": keep-alive\n\n", *_WHOLE.pieces),), usage=_USED),
        cut(
            "thinks-only",
            "max_completion_tokens",
            stream(*_THOUGHT, _chunk(b'{"content":""}', b'"length"', _COUNTED), DONE),
            usage=_USED,
        ),
        calling(
            "thinks-and-calls",
            stream(
                *_THOUGHT,
                _chunk(
                    b'{"tool_calls":[{"index":0,"id":"call_00_ExampleExampleExample","type":"function","function":{"name":'
                    b'"weather","arguments":""}}]}'
                ),
                _chunk(rb'{"tool_calls":[{"index":0,"function":{"arguments":"{\"city\": "}}]}'),
                _chunk(rb'{"tool_calls":[{"index":0,"function":{"arguments":"\"Berlin\"}"}}]}'),
                _chunk(b'{"content":"","reasoning_content":null}', b'"tool_calls"', _COUNTED),
                DONE,
            ),
            _WHOLE,
            BERLIN,
            usage=_USED,
            ids=("call_00_ExampleExampleExample",),
        ),
    ),
)
