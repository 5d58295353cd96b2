"""Azure OpenAI: filter results around and in the chunks, chunks without delta or model, numbers as error codes."""

from tests.runs.manners import BERLIN, DONE, KOELN, Manner, Scenario, body, calling, cut, refused, stream

_SAFE = (
    b'{"hate":{"filtered":false,"severity":"safe"},"self_harm":{"filtered":false,"severity":"safe"},'
    b'"sexual":{"filtered":false,"severity":"safe"},"violence":{"filtered":false,"severity":"safe"}}'
)
_PROMPT = (
    b'data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0,'
    b'"content_filter_results":' + _SAFE + b"}]}\n\n"
)
_LATE_FILTER = (
    b'data: {"id":"","object":"","created":0,"model":"","choices":[{"index":0,"finish_reason":null,'
    b'"content_filter_results":'
    + _SAFE
    + b',"content_filter_offsets":{"check_offset":44,"start_offset":44,"end_offset":198}}],"usage":null}\n\n'
)


def _chunk(delta: bytes, finish_reason: bytes = b"null", filtered: bytes = _SAFE) -> bytes:
    return (
        b'data: {"choices":[{"content_filter_results":'
        + filtered
        + b',"delta":'
        + delta
        + b',"finish_reason":'
        + finish_reason
        + b',"index":0,"logprobs":null}],"created":1761900000,"id":"chatcmpl-CXo1exampleexampleexample2",'
        b'"model":"gpt-4o-2024-08-06","object":"chat.completion.chunk","system_fingerprint":"fp_0123456789",'
        b'"usage":null}\n\n'
    )


_ROLE = _chunk(b'{"content":"","refusal":null,"role":"assistant"}', filtered=b"{}")
_SAID = (_PROMPT, _ROLE, _chunk('{"content":"Grüße"}'.encode()), _chunk(b'{"content":", Jane!"}'))
_USAGE = (
    b'data: {"choices":[],"created":1761900000,"id":"chatcmpl-CXo1exampleexampleexample2","model":"gpt-4o-2024-08-06",'
    b'"object":"chat.completion.chunk","system_fingerprint":"fp_0123456789","usage":{"completion_tokens":10,'
    b'"completion_tokens_details":{"accepted_prediction_tokens":0,"audio_tokens":0,"reasoning_tokens":0,'
    b'"rejected_prediction_tokens":0},"prompt_tokens":19,"prompt_tokens_details":{"audio_tokens":0,'
    b'"cached_tokens":0},"total_tokens":29}}\n\n'
)
_WHOLE = stream(*_SAID, _chunk(b"{}", b'"stop"', b"{}"), _USAGE, DONE)

_VIOLENT = _SAFE.replace(
    b'"violence":{"filtered":false,"severity":"safe"}', b'"violence":{"filtered":true,"severity":"medium"}'
)


def _call(entry: bytes) -> bytes:
    return _chunk(b'{"tool_calls":[' + entry + b"]}", filtered=b"{}")


_BEGUN = (
    _PROMPT,
    _chunk(b'{"content":null,"refusal":null,"role":"assistant"}', filtered=b"{}"),
    _call(
        b'{"function":{"arguments":"","name":"weather"},"id":"call_a0ExampleExampleExample1","index":0,"type":'
        b'"function"}'
    ),
    _call(rb'{"function":{"arguments":"{\"city\": \"Ber"},"index":0}'),
)
_SECOND = (
    _call(rb'{"function":{"arguments":"lin\"}"},"index":0}'),
    _call(
        b'{"function":{"arguments":"","name":"weather"},"id":"call_a0ExampleExampleExample2","index":1,"type":'
        b'"function"}'
    ),
    _call('{"function":{"arguments":"{\\"city\\": \\"Köln\\"}"},"index":1}'.encode()),
)

AZURE = Manner(
    "azure",
    path="/openai/v1",
    models=body(
        b'{"data":[{"status":"succeeded","capabilities":{"fine_tune":false,"inference":true,"completion":false,'
        b'"chat_completion":true,"embeddings":false},"lifecycle_status":"generally-available","deprecation":'
        b'{"inference":1790000000},"id":"gpt-4o-2024-08-06","created_at":1722902400,"updated_at":1722902400,'
        b'"object":"model"}],"object":"list"}'
    ),
    model_ids=("gpt-4o-2024-08-06",),
    scenarios=(
        Scenario("gpt-4o", (_WHOLE,), usage=(19, 10, 0, 0)),
        Scenario(
            "filters-later",
            (stream(*_SAID, _chunk(b"{}", b'"stop"', b"{}"), _LATE_FILTER, _USAGE, DONE),),
            usage=(19, 10, 0, 0),
        ),
        Scenario(
            "filters-the-answer",
            (
                stream(
                    _PROMPT,
                    _ROLE,
                    _chunk('{"content":"Grüße"}'.encode()),
                    _chunk(
                        b"{}",
                        b'"content_filter"',
                        _VIOLENT,
                    ),
                    DONE,
                ),
            ),
            text="Grüße",
            status="incomplete",
            reason="content_filter",
        ),
        calling(
            "calls-twice",
            stream(*_BEGUN, *_SECOND, _chunk(b"{}", b'"tool_calls"', b"{}"), _USAGE, DONE),
            _WHOLE,
            BERLIN,
            KOELN,
            usage=(19, 10, 0, 0),
            ids=("call_a0ExampleExampleExample1", "call_a0ExampleExampleExample2"),
        ),
        cut(
            "filters-a-call",
            "content_filter",
            stream(*_BEGUN, _chunk(b"{}", b'"content_filter"', _VIOLENT), DONE),
            ("weather", '{"city": "Ber'),
        ),
        refused(
            "filters-the-prompt",
            body(
                b'{"error":{"message":"The response was filtered due to the prompt triggering Azure OpenAI\'s content '
                b"management policy. Please modify your prompt and retry. To learn more about our content filtering "
                b'policies please read our documentation: https://go.microsoft.com/fwlink/?linkid=2198766","type":null,'
                b'"param":"prompt","code":"content_filter","status":400,"innererror":{"code":'
                b'"ResponsibleAIPolicyViolation","content_filter_result":{"hate":{"filtered":false,"severity":"safe"},'
                b'"jailbreak":{"filtered":false,"detected":false},"self_harm":{"filtered":false,"severity":"safe"},'
                b'"sexual":{"filtered":false,"severity":"safe"},"violence":{"filtered":true,"severity":"medium"}}}}}',
                400,
            ),
            "Please modify your prompt",
            code="invalid_prompt",
        ),
        refused(
            "wants-another-key",
            body(
                b'{"error":{"code":"401","message":"Access denied due to invalid subscription key or wrong API '
                b"endpoint. Make sure to provide a valid key for an active subscription and use a correct regional API "
                b'endpoint for your resource."}}',
                401,
                {"www-authenticate": 'AzureApiManagementKey realm="https://example.openai.azure.com/openai"'},
            ),
            "refused its API key (401)",
            "check ADLATUS_MODEL_API_KEY",
        ),
        refused(
            "is-behind-a-gateway",
            body(
                b'{ "statusCode": 401, "message": "Unauthorized. Access token is missing, invalid or expired." }', 401
            ),
            "check ADLATUS_MODEL_API_KEY",
        ),
        refused(
            "is-not-deployed",
            body(
                b'{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist.'
                b' If you created the deployment within the last 5 minutes, please wait a moment and try again."}}',
                404,
            ),
            "does not know the model 'is-not-deployed' (404)",
            "set ADLATUS_MODEL",
        ),
        refused(
            "is-elsewhere",
            body(b'{"error":{"code":"404","message": "Resource not found"}}', 404),
            "nothing at this address (404)",
            "check ADLATUS_MODEL_BASE_URL",
        ),
        Scenario(
            "limits-in-milliseconds",
            (
                body(
                    b'{"error":{"code":"429","message": "Requests to the ChatCompletions_Create Operation under Azure '
                    b"OpenAI API version 2024-10-21 have exceeded token rate limit of your current OpenAI S0 pricing "
                    b'tier. Please retry after 26 seconds."}}',
                    429,
                    {"retry-after": "26", "retry-after-ms": "30"},
                ),
                _WHOLE,
            ),
            usage=(19, 10, 0, 0),
            heard=2,
        ),
    ),
)
