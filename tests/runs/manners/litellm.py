"""LiteLLM's proxy: codes are strings, `None` is one too, other servers' words inside its own, comments, no end."""

from tests.runs.manners import DONE, Manner, Scenario, body, refused, stream


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
_WHOLE = stream(*_SAID, _END, _USAGE, DONE)

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
