"""OpenRouter: comments while it waits, `reasoning` with its details, its own finish reasons beside OpenAI's."""

from tests.runs.manners import BERLIN, DONE, Manner, Scenario, body, calling, refused, stream


def _chunk(delta: bytes, finish_reason: bytes = b"null", rest: bytes = b"") -> bytes:
    return (
        b'data: {"id":"gen-1761900000-kKgOdaExample","provider":"Azure","model":"deepseek/deepseek-r1","object":'
        b'"chat.completion.chunk","created":1761900000,"choices":[{"index":0,"delta":{"role":"assistant",'
        + delta
        + b"},"
        b'"finish_reason":'
        + finish_reason
        + b',"native_finish_reason":'
        + finish_reason
        + b',"logprobs":null}]'
        + rest
        + b"}\n\n"
    )


_WAITS = b": OPENROUTER PROCESSING\n\n"
_THOUGHT = _chunk(
    b'"content":"","reasoning":"Jane wants","reasoning_details":[{"type":"reasoning.text","text":"Jane wants","format":'
    b'"unknown","index":0}]'
)
_SAID = (
    _chunk('"content":"Grüße","reasoning":null,"reasoning_details":[]'.encode()),
    _chunk(b'"content":", Jane!"'),
)
_END = _chunk(b'"content":""', b'"stop"')
_USAGE = _chunk(
    b'"content":""',
    rest=b',"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,"cost":0.0001,"is_byok":false,'
    b'"prompt_tokens_details":{"cached_tokens":8,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":4}}',
)
_USED = (19, 10, 8, 4)
_WHOLE = stream(_WAITS, _THOUGHT, _WAITS, *_SAID, _END, _USAGE, DONE)

OPENROUTER = Manner(
    "openrouter",
    path="/api/v1",
    models=body(
        b'{"data":[{"id":"deepseek/deepseek-r1","canonical_slug":"deepseek/deepseek-r1","name":"DeepSeek: R1",'
        b'"created":1737381095,"context_length":163840,"architecture":{"modality":"text->text"},"supported_parameters":["tools"]}]}'
    ),
    model_ids=("deepseek/deepseek-r1",),
    scenarios=(
        Scenario("deepseek/deepseek-r1", (_WHOLE,), usage=_USED),
        calling(
            "thinks-and-calls",
            stream(
                _WAITS,
                _THOUGHT,
                _chunk(
                    b'"content":null,"tool_calls":[{"index":0,"id":"call_o0ExampleExampleExample1","type":"function",'
                    b'"function":{"name":"weather","arguments":""}}]'
                ),
                _chunk(
                    b'"content":null,"tool_calls":[{"index":0,"type":"function","function":{"name":null,"arguments":'
                    rb'"{\"city\": \"Berlin\"}"}}]'
                ),
                _chunk(b'"content":""', b'"tool_calls"'),
                _USAGE,
                DONE,
            ),
            _WHOLE,
            BERLIN,
            usage=_USED,
            ids=("call_o0ExampleExampleExample1",),
        ),
        refused(
            "breaks-off",
            stream(
                *_SAID,
                b'data: {"id":"gen-1761900000-kKgOdaExample","object":"chat.completion.chunk","created":1761900000,'
                b'"model":"deepseek/deepseek-r1","provider":"Azure","error":{"code":502,"message":'
                b'"Provider disconnected"},"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}\n\n',
                DONE,
            ),
            "Provider disconnected",
            text="Grüße, Jane!",
        ),
    ),
)
