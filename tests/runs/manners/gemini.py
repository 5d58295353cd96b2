"""Gemini's own: whole calls without index or id, `stop` after calls, usage all along, errors in a list."""

import json

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


def _chunk(delta: bytes, rest: bytes = b"", completion: int = 10) -> bytes:
    return (
        b'data: {"choices":[{"delta":{' + delta + b'"role":"assistant"}' + rest + b',"index":0}],"created":1761900000,'
        b'"id":"aBcDeExample","model":"gemini-2.5-flash","object":"chat.completion.chunk","usage":{"completion_tokens":'
        b'%d,"prompt_tokens":19,"total_tokens":%d}}\n\n' % (completion, 19 + completion)
    )


def _call(city: str, rest: bytes) -> bytes:
    arguments = json.dumps(json.dumps({"city": city}, ensure_ascii=False), ensure_ascii=False)
    return b'{"function":{"arguments":' + arguments.encode() + b',"name":"weather"},' + rest + b'"type":"function"}'


def _calls(*entries: bytes) -> bytes:
    return b'"tool_calls":[' + b",".join(entries) + b"],"


_SIGNED = b'"extra_content":{"google":{"thought_signature":"EjQKMgEMOdbHJChLX75QUCJj+/=="}},'
_STOP = b',"finish_reason":"stop"'
_END = _chunk(b"", _STOP)
_USED = (19, 10, 0, 0)
_WHOLE = stream(_chunk('"content":"Grüße",'.encode(), completion=4), _chunk(b'"content":", Jane!",', _STOP), DONE)

GEMINI = Manner(
    "gemini",
    path="/v1beta/openai",
    models=body(
        b'{"object":"list","data":[{"id":"models/gemini-2.5-flash","object":"model","owned_by":"google","display_name":'
        b'"Gemini 2.5 Flash"}]}'
    ),
    model_ids=("models/gemini-2.5-flash",),
    accepts=OPENAI_PARAMETERS - {"parallel_tool_calls"},
    scenarios=(
        Scenario("gemini-2.5-flash", (_WHOLE,), usage=_USED),
        Scenario("says-nothing", (stream(_END, DONE),), text="", usage=_USED),
        cut(
            "thinks-only", "max_completion_tokens", stream(_chunk(b"", b',"finish_reason":"length"'), DONE), usage=_USED
        ),
        calling(
            "calls",
            stream(_chunk(_calls(_call("Berlin", b'"id":"function-call-1234567890",')), _STOP), DONE),
            _WHOLE,
            BERLIN,
            usage=_USED,
            ids=("function-call-1234567890",),
        ),
        calling(
            "calls-twice-without-ids",
            stream(_chunk(_calls(_call("Berlin", b'"id":"",'), _call("K\u00f6ln", b'"id":"",')), _STOP), DONE),
            _WHOLE,
            BERLIN,
            KOELN,
            usage=_USED,
        ),
        calling(
            "calls-twice-with-the-index-0",
            stream(
                _chunk(_calls(_call("Berlin", b'"id":"","index":0,'))),
                _chunk(_calls(_call("K\u00f6ln", b'"id":"","index":0,'))),
                _END,
                DONE,
            ),
            _WHOLE,
            BERLIN,
            KOELN,
            usage=_USED,
        ),
        calling(
            "says-and-calls-with-a-signature",
            stream(
                _chunk(b'"content":"Let me see.",', completion=3),
                _chunk(_calls(_call("Berlin", _SIGNED + b'"id":"jm4owj31",'))),
                _END,
                DONE,
            ),
            _WHOLE,
            BERLIN,
            usage=_USED,
            said="Let me see.",
            ids=("jm4owj31",),
        ),
        calling(
            "says-and-calls-at-once",
            stream(
                _chunk(b'"content":"Let me see.",' + _calls(_call("Berlin", b'"id":"jm4owj31",')), _STOP),
                DONE,
            ),
            _WHOLE,
            BERLIN,
            usage=_USED,
            said="Let me see.",
            ids=("jm4owj31",),
        ),
        Scenario(
            "limits",
            (
                body(
                    b'[{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and '
                    b'billing details. Please retry in 0.02s.","status":"RESOURCE_EXHAUSTED"}}]',
                    429,
                ),
                _WHOLE,
            ),
            usage=_USED,
            heard=2,
        ),
        refused(
            "wants-another-key",
            body(
                b'[{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":'
                b'"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":'
                b'"API_KEY_INVALID","domain":"googleapis.com"}]}}]',
                400,
            ),
            "refused the request (400): API key not valid. Please pass a valid API key.",
            code="invalid_prompt",
        ),
    ),
)
