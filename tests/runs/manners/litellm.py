"""LiteLLM's proxy: codes are strings, `None` is one too, other servers' words inside its own, comments, no end."""

import json

from tests.runs.manners import BERLIN, DONE, KOELN, Manner, Scenario, body, calling, refused, stream


def _chunk(choice: bytes, rest: bytes = b"") -> bytes:
    return (
        b'data: {"id":"chatcmpl-0a1b2c3d-0000-4000-8000-0123456789ab","created":1761900000,"model":"gpt-4o",'
        b'"object":"chat.completion.chunk","choices":[{"index":0,' + choice + b"}]" + rest + b"}\n\n"
    )


_FIELDS = b'"provider_specific_fields":null,'
_SAID = (
    _chunk('"delta":{"provider_specific_fields":null,"content":"Grüße","role":"assistant"}'.encode()),
    _chunk(b'"delta":{' + _FIELDS + b'"content":", Jane!"}'),
)
_COUNTED = (
    b',"usage":{"completion_tokens":10,"prompt_tokens":19,"total_tokens":29,"completion_tokens_details":{'
    b'"reasoning_tokens":4},"prompt_tokens_details":{"cached_tokens":8}}'
)
_END = _chunk(b'"finish_reason":"stop","delta":{}')
_END_AND_USAGE = _chunk(b'"finish_reason":"stop","delta":{}', _COUNTED)
_USAGE = _chunk(b'"delta":{}', _COUNTED)
_PLAIN_USAGE = _chunk(b'"delta":{}', b',"usage":{"completion_tokens":10,"prompt_tokens":19,"total_tokens":29}')
_WHOLE = stream(*_SAID, _END, _USAGE, DONE)

_USED = (19, 10, 8, 4)
_CALLED = _chunk(b'"finish_reason":"tool_calls","delta":{}')
_TOOLU = "toolu_01A09q90qw90lq917835lq9"


def _delta(rest: bytes) -> bytes:
    return _chunk(b'"delta":{' + _FIELDS + rest + b"}")


def _calls(*entries: bytes) -> bytes:
    return _delta(b'"content":null,"tool_calls":[' + b",".join(entries) + b"]")


def _claude(index: int) -> tuple[bytes, ...]:
    first = b'{"id":"%b","function":{"arguments":"","name":"weather"},"type":"function","index":%d}'
    pieces = (rb"", rb"{\"city\"", rb": \"Ber", rb"lin\"}")
    rest = b'{"id":null,"function":{"arguments":"%b","name":null},"type":"function","index":%d}'
    return (_calls(first % (_TOOLU.encode(), index)), *(_calls(rest % (piece, index)) for piece in pieces))


def _gemini(call_id: str, city: str, index: int = 0) -> bytes:
    arguments = json.dumps(json.dumps({"city": city}, ensure_ascii=False), ensure_ascii=False)
    return b'{"id":"%b","function":{"arguments":%b,"name":"weather"},"type":"function","index":%d}' % (
        call_id.encode(),
        arguments.encode(),
        index,
    )


LITELLM = Manner(
    "litellm",
    models=body(
        b'{"data":[{"id":"gpt-4o","object":"model","created":1677610602,"owned_by":"openai"}],"object":"list"}'
    ),
    model_ids=("gpt-4o",),
    scenarios=(
        Scenario("gpt-4o", (_WHOLE,), usage=(19, 10, 8, 4)),
        Scenario("counts-in-the-last-choice", (stream(*_SAID, _END_AND_USAGE, DONE),), usage=(19, 10, 8, 4)),
        Scenario("pings", (stream(b": ping\n\n", *_SAID, b": ping\n\n", _END, _USAGE, DONE),), usage=(19, 10, 8, 4)),
        Scenario("has-no-end", (stream(*_SAID, _END, _USAGE),), usage=(19, 10, 8, 4)),
        calling(
            "claude-sonnet-4",  # the index counts the text before the call too
            stream(
                _chunk(b'"delta":{' + _FIELDS + b'"content":"Let me see.","role":"assistant"}'),
                *_claude(1),
                _CALLED,
                _USAGE,
                DONE,
            ),
            _WHOLE,
            BERLIN,
            usage=_USED,
            said="Let me see.",
            ids=(_TOOLU,),
        ),
        calling(
            "claude-thinks-and-calls",
            stream(
                _delta(
                    b'"reasoning_content":"Jane wants","thinking_blocks":[{"type":"thinking","thinking":"Jane wants",'
                    b'"signature":null}],"content":"","role":"assistant"'
                ),
                _delta(
                    b'"reasoning_content":"","thinking_blocks":[{"type":"thinking","thinking":"","signature":"EqQBCg=="}],'
                    b'"content":""'
                ),
                *_claude(0),
                _CALLED,
                _USAGE,
                DONE,
            ),
            _WHOLE,
            BERLIN,
            usage=_USED,
            ids=(_TOOLU,),
        ),
        calling(
            "gemini-2.5-pro",
            stream(
                _calls(_gemini("call_0a1b2c3d4e5f", "Berlin"), _gemini("call_5f4e3d2c1b0a", "Köln", 1)),
                _END,
                _USAGE,
                DONE,
            ),
            _WHOLE,
            BERLIN,
            KOELN,
            usage=_USED,
            ids=("call_0a1b2c3d4e5f", "call_5f4e3d2c1b0a"),
        ),
        calling(
            "gemini-3-pro",  # the ids carry signatures, which are more than an id of ours can be
            stream(
                _calls(_gemini("call_0a1b2c3d4e5f__thought__EpAC" + "Cg+/" * 99 + "==", "Berlin")),
                _CALLED,
                _USAGE,
                DONE,
            ),
            _WHOLE,
            BERLIN,
            usage=_USED,
        ),
        calling(
            "calls-in-one-body",
            body(
                b'{"id":"chatcmpl-0a1b2c3d","created":1761900000,"model":"gpt-4o","object":"chat.completion","choices":[{'
                b'"finish_reason":"tool_calls","index":0,"message":{"content":null,"role":"assistant","tool_calls":[{'
                rb'"function":{"arguments":"{\"city\": \"Berlin\"}","name":"weather"},"id":"toolu_01","type":'
                rb'"function"},{"function":{"arguments":"","name":"now"},"id":"toolu_02","type":"function"}],'
                b'"function_call":null}}],"usage":{"completion_tokens":10,"prompt_tokens":19,"total_tokens":29}}'
            ),
            stream(*_SAID, _END, _PLAIN_USAGE, DONE),
            BERLIN,
            ("now", ""),
            usage=(19, 10, 0, 0),
            ids=("toolu_01", "toolu_02"),
        ),
        Scenario(
            "cools-down",
            (
                body(
                    b'{"error":{"message":"No deployments available for selected model, Try again in 0.02 seconds. '
                    b'Passed model=cools-down. pre-call-checks=False, cooldown_list=[]","type":"None","param":"None",'
                    b'"code":"429"}}',
                    429,
                ),
                _WHOLE,
            ),
            usage=(19, 10, 8, 4),
            heard=2,
        ),
        refused(
            "is-over-budget",
            body(
                b'{"error":{"message":"Budget has been exceeded! Current cost: 10.2, Max budget: 10.0","type":'
                b'"budget_exceeded","param":null,"code":"429"}}',
                429,
            ),
            "Budget has been exceeded",
            code="rate_limit_exceeded",
        ),
        refused(
            "is-not-listed",
            body(
                b'{"error":{"message":"/chat/completions: Invalid model name passed in model=is-not-listed. Call '
                b'`/v1/models` to view available models for your key.","type":"None","param":"None","code":"400"}}',
                400,
            ),
            "does not know the model 'is-not-listed' (400)",
            "set ADLATUS_MODEL",
        ),
        refused(
            "wants-another-key",
            body(
                b'{"error":{"message":"Authentication Error, Invalid proxy server token passed. Received API Key = '
                b'sk-...1234","type":"auth_error","param":"None","code":"401"}}',
                401,
            ),
            "check ADLATUS_MODEL_API_KEY",
        ),
        refused(
            "filters-the-prompt",
            body(
                b'{"error":{"message":"litellm.BadRequestError: litellm.ContentPolicyViolationError: AzureException - '
                b'The response was filtered. Received Model Group=filters-the-prompt","type":null,"param":null,"code":'
                b'"400","provider_specific_fields":{"innererror":{"code":"ResponsibleAIPolicyViolation"}}}}',
                400,
            ),
            "The response was filtered",
            code="invalid_prompt",
        ),
        refused(
            "fails-in-the-middle",
            stream(
                *_SAID,
                b'data: {"error": {"message": "litellm.APIConnectionError: the connection was closed", "type": null, '
                b'"param": null, "code": "500"}}\n\n',
            ),
            "litellm.APIConnectionError",
            text="Grüße, Jane!",
        ),
        refused(
            "is-limited-in-the-middle",
            stream(
                *_SAID,
                b'data: {"error": {"message": "litellm.RateLimitError: slow down", "type": "throttling_error", '
                b'"param": null, "code": "429"}}\n\n',
                DONE,
            ),
            "slow down",
            code="rate_limit_exceeded",
            text="Grüße, Jane!",
        ),
    ),
)
