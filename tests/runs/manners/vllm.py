"""vLLM: reasoning beside the content, usage in every chunk if asked, errors that come after the status."""

from tests.runs.manners import DONE, Manner, Scenario, body, refused, stream

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


def _so_far(completion: int) -> bytes:
    return b',"usage":{"prompt_tokens":19,"total_tokens":%d,"completion_tokens":%d}' % (19 + completion, completion)


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
