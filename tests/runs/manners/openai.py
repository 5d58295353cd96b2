"""OpenAI: the role first with an empty content, obfuscation, usage in a chunk without choices."""

from tests.runs.manners import BERLIN, DONE, FORCED, Manner, Scenario, body, calling, cut, refused, stream


def _chunk(
    delta: bytes, finish_reason: bytes = b"null", usage: bytes = b"null", obfuscation: bytes = b"x7Qm2"
) -> bytes:
    choice = b'{"index":0,"delta":' + delta + b',"logprobs":null,"finish_reason":' + finish_reason + b"}"
    return _event(b"[" + choice + b"]", usage, obfuscation)


def _event(choices: bytes, usage: bytes, obfuscation: bytes) -> bytes:
    return (
        b'data: {"id":"chatcmpl-CXo1exampleexampleexample1","object":"chat.completion.chunk","created":1761900000,'
        b'"model":"gpt-4o-2024-08-06","service_tier":"default","system_fingerprint":"fp_0123456789","choices":'
        + choices
        + b',"usage":'
        + usage
        + b',"obfuscation":"'
        + obfuscation
        + b'"}\n\n'
    )


_ROLE = _chunk(b'{"role":"assistant","content":"","refusal":null}')
_USAGE = _event(
    b"[]",
    b'{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":8,'
    b'"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":4,"audio_tokens":0,'
    b'"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}',
    b"",
)
_SAID = (_ROLE, _chunk('{"content":"Grüße"}'.encode()), _chunk(b'{"content":", Jane!"}', obfuscation=b""))
_WHOLE = stream(*_SAID, _chunk(b"{}", b'"stop"'), _USAGE, DONE)
_USED = (19, 10, 8, 4)


def _call(entry: bytes) -> bytes:
    return _chunk(b'{"tool_calls":[' + entry + b"]}")


_FIRST = (
    b'{"index":0,"id":"call_q0ExampleExampleExample1","type":"function","function":{"name":"weather","arguments":""}}'
)
_WEATHER = (  # the only call of an answer comes with the role
    _chunk(b'{"role":"assistant","content":null,"tool_calls":[' + _FIRST + b'],"refusal":null}'),
    _call(rb'{"index":0,"function":{"arguments":"{\"city"}}'),
    _call(rb'{"index":0,"function":{"arguments":"\": \"Ber"}}'),
)
_LIN = _call(rb'{"index":0,"function":{"arguments":"lin\"}"}}')
_SECOND = (
    _call(
        b'{"index":1,"id":"call_q0ExampleExampleExample2","type":"function","function":{"name":"weather",'
        b'"arguments":""}}'
    ),
    _call(rb'{"index":1,"function":{"arguments":"{\"city\": \"K\\u00f6ln\"}"}}'),
)
_CALLED = _chunk(b"{}", b'"tool_calls"')
_IDS = ("call_q0ExampleExampleExample1", "call_q0ExampleExampleExample2")
_CODER = "\U0001f469\u200d\U0001f4bb"
_LIMITED = {
    "error": {
        "message": "Rate limit reached for gpt-4o in organization org-example on tokens per min (TPM): Limit 30000, "
        "Used 29000, Requested 1500. Please try again in 20ms. Visit https://platform.openai.com/account/rate-limits "
        "to learn more.",
        "type": "tokens",
        "param": None,
        "code": "rate_limit_exceeded",
    }
}


def _error(message: str, kind: str, param: str | None, code: str | None) -> dict[str, object]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


_NO_TEMPERATURE = _error(
    "Unsupported parameter: 'temperature' is not supported with this model.",
    "invalid_request_error",
    "temperature",
    "unsupported_parameter",
)

OPENAI = Manner(
    "openai",
    models=body(
        b'{\n  "object": "list",\n  "data": [\n    {\n      "id": "gpt-4o",\n      "object": "model",\n'
        b'      "created": 1715367049,\n      "owned_by": "system"\n    }\n  ]\n}\n'
    ),
    model_ids=("gpt-4o",),
    scenarios=(
        Scenario("gpt-4o", (_WHOLE,), usage=_USED),
        Scenario(
            "refuses",
            (
                stream(
                    _ROLE,
                    _chunk(b'{"refusal":"I\'m sorry, "}'),
                    _chunk(b'{"refusal":"Jane."}'),
                    _chunk(b"{}", b'"stop"'),
                    _USAGE,
                    DONE,
                ),
            ),
            text="I'm sorry, Jane.",
            usage=_USED,
        ),
        Scenario(
            "says-and-refuses",
            (
                stream(
                    *_SAID,
                    _chunk(b'{"refusal":" No, "}'),
                    _chunk(b'{"refusal":"Jane."}'),
                    _chunk(b"{}", b'"stop"'),
                    _USAGE,
                    DONE,
                ),
            ),
            text="Grüße, Jane! No, Jane.",
            usage=_USED,
        ),
        Scenario("says-nothing", (stream(_ROLE, _chunk(b"{}", b'"stop"'), _USAGE, DONE),), text="", usage=_USED),
        cut(
            "thinks-only", "max_completion_tokens", stream(_ROLE, _chunk(b"{}", b'"length"'), _USAGE, DONE), usage=_USED
        ),
        Scenario(
            "says-an-emoji-in-parts",
            (
                stream(
                    _ROLE,
                    _chunk(rb'{"content":"\ud83d\udc69\u200d"}'),
                    _chunk(rb'{"content":"\ud83d\udcbb"}'),
                    _chunk(b"{}", b'"stop"'),
                    DONE,
                ),
            ),
            text=_CODER,
        ),
        calling("calls", stream(*_WEATHER, _LIN, _CALLED, _USAGE, DONE), _WHOLE, BERLIN, usage=_USED, ids=_IDS[:1]),
        calling(
            "calls-twice",
            stream(_ROLE, _call(_FIRST), *_WEATHER[1:], _LIN, *_SECOND, _CALLED, _USAGE, DONE),
            _WHOLE,
            BERLIN,
            ("weather", r'{"city": "K\u00f6ln"}'),
            usage=_USED,
            ids=_IDS,
        ),
        calling(
            "says-and-calls",
            stream(*_SAID, _call(_FIRST), *_WEATHER[1:], _LIN, _CALLED, _USAGE, DONE),
            _WHOLE,
            BERLIN,
            usage=_USED,
            said="Grüße, Jane!",
            ids=_IDS[:1],
        ),
        calling(
            "has-to-call",  # one function that it has to call ends with `stop`
            stream(*_WEATHER, _LIN, _chunk(b"{}", b'"stop"'), _USAGE, DONE),
            _WHOLE,
            BERLIN,
            usage=_USED,
            ids=_IDS[:1],
            asks={"tool_choice": FORCED, "parallel_tool_calls": False},
        ),
        cut(
            "runs-out-of-tokens-in-a-call",
            "max_completion_tokens",
            stream(*_WEATHER, _chunk(b"{}", b'"length"'), _USAGE, DONE),
            ("weather", '{"city": "Ber'),
            usage=_USED,
        ),
        Scenario(
            "runs-out-of-tokens",
            (stream(*_SAID, _chunk(b"{}", b'"length"'), _USAGE, DONE),),
            usage=_USED,
            status="incomplete",
            reason="max_completion_tokens",
        ),
        Scenario(
            "limits-in-milliseconds",
            (body(_LIMITED, 429, {"retry-after": "21", "retry-after-ms": "20"}), _WHOLE),
            usage=_USED,
            heard=2,
        ),
        Scenario("limits-in-words", (body(_LIMITED, 429), _WHOLE), usage=_USED, heard=2),
        Scenario(
            "o3-mini",
            (_WHOLE,),
            usage=_USED,
            omits=frozenset({"temperature", "top_p"}),
        ),
        refused(
            "takes-no-temperature",
            body(_NO_TEMPERATURE, 400),
            "'temperature' is not supported with this model",
            code="invalid_prompt",
        ),
        refused(
            "has-no-quota",
            body(
                _error(
                    "You exceeded your current quota, please check your plan and billing details. For more information "
                    "on this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.",
                    "insufficient_quota",
                    None,
                    "insufficient_quota",
                ),
                429,
                {"retry-after": "1"},
            ),
            "check your plan and billing details",
            code="rate_limit_exceeded",
        ),
        refused(
            "has-a-short-context",
            body(
                _error(
                    "This model's maximum context length is 128000 tokens. However, your messages resulted in 128044 "
                    "tokens. Please reduce the length of the messages.",
                    "invalid_request_error",
                    "messages",
                    "context_length_exceeded",
                ),
                400,
            ),
            "refused the request (400)",
            "reduce the length of the messages",
            code="invalid_prompt",
        ),
        refused(
            "takes-no-such-value",
            body(
                _error(
                    "Unsupported value: 'temperature' does not support 0.2 with this model. Only the default (1) value "
                    "is supported.",
                    "invalid_request_error",
                    "temperature",
                    "unsupported_value",
                ),
                400,
            ),
            "Only the default (1) value is supported",
            code="invalid_prompt",
        ),
        refused(
            "does-not-exist",
            body(
                _error(
                    "The model `does-not-exist` does not exist or you do not have access to it.",
                    "invalid_request_error",
                    None,
                    "model_not_found",
                ),
                404,
            ),
            "does not know the model 'does-not-exist' (404)",
            "set ADLATUS_MODEL",
        ),
        refused(
            "is-elsewhere",
            body(_error("Invalid URL (POST /v1/v1/chat/completions)", "invalid_request_error", None, None), 404),
            "nothing at this address (404)",
            "check ADLATUS_MODEL_BASE_URL",
        ),
        refused(
            "wants-another-key",
            body(
                _error(
                    "Incorrect API key provided: sk-ab***yz. You can find your API key at "
                    "https://platform.openai.com/account/api-keys.",
                    "invalid_request_error",
                    None,
                    "invalid_api_key",
                ),
                401,
            ),
            "refused its API key (401)",
            "check ADLATUS_MODEL_API_KEY",
        ),
        refused(
            "fails-in-the-middle",
            stream(
                *_SAID,
                b'data: {"error":{"message":"The server had an error while processing your request. Sorry about that!",'
                b'"type":"server_error","param":null,"code":null}}\n\n',
            ),
            "reported an error: The server had an error",
            text="Grüße, Jane!",
        ),
        refused(
            "fails-in-a-call",
            stream(
                *_WEATHER,
                b'data: {"error":{"message":"The server had an error while processing your request. Sorry about that!",'
                b'"type":"server_error","param":null,"code":null}}\n\n',
            ),
            "reported an error: The server had an error",
            calls=(("weather", '{"city": "Ber'),),
        ),
    ),
)
