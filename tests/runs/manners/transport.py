"""What lies between: line endings, cuts in odd places, compression, gateways that answer in the model's place."""

import gzip
import json

from tests.runs.manners import BERLIN, DONE, KOELN, SSE, Answer, Manner, Scenario, body, calling, refused, stream


def _chunk(delta: bytes, finish_reason: bytes = b"null") -> bytes:
    choice = b'{"index":0,"delta":' + delta + b',"finish_reason":' + finish_reason + b"}"
    return b'data: {"object":"chat.completion.chunk","choices":[' + choice + b"]}\n\n"


_STREAM = (
    _chunk('{"role":"assistant","content":"Grüße"}'.encode())
    + _chunk(b'{"content":", Jane!"}')
    + _chunk(b"{}", b'"stop"')
    + b'data: {"choices":[],"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29}}\n\n'
    + DONE
)
_COUNT = b',"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29}'
_UNCOUNTED = stream(_STREAM.replace(_COUNT, b""))
_USED = (19, 10, 0, 0)
_COMPLETION = (
    '{"id":"chatcmpl-1","object":"chat.completion","created":1761900000,"model":"m","choices":[{"index":0,"message":'
    '{"role":"assistant","content":"Grüße, Jane!","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":'
    '{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29}}'
).encode()
_INSIDE_A_CHARACTER = _STREAM.index("ü".encode()) + 1
_CALL = (
    _chunk(b'{"tool_calls":[{"index":0,"id":"call_1","function":{"name":"weather","arguments":""}}]}')
    + _chunk('{"tool_calls":[{"index":0,"function":{"arguments":"{\\"city\\": \\"Köln\\"}"}}]}'.encode())
    + _chunk(b"{}", b'"tool_calls"')
    + b'data: {"choices":[],"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29}}\n\n'
    + DONE
)
_INSIDE_AN_ARGUMENT = _CALL.index("ö".encode()) + 1
_PACKED = gzip.compress(_STREAM)
_LOGIN = (
    b"<!doctype html>\n<html><head><title>Sign in</title><style>body { margin: 0 }</style></head>"
    b"<body><h1>Sign in to continue</h1></body></html>\n"
)
_HTML = {"content-type": "text/html; charset=utf-8"}

TRANSPORT = Manner(
    "transport",
    models=body(b'{"object":"list","data":null}\n'),  # Ollama's, of no models
    model_ids=(),
    scenarios=(
        Scenario("crlf", (stream(_STREAM.replace(b"\n", b"\r\n")),), usage=_USED),
        Scenario("no-space", (stream(_STREAM.replace(b"data: ", b"data:")),), usage=_USED),
        Scenario(
            "gaps", (stream(b"\n\n\n: hello\n\nretry: 100\nid: 1\nevent: message\ndata:\n\n" + _STREAM),), usage=_USED
        ),
        Scenario(
            "cut-in-a-character", (stream(_STREAM[:_INSIDE_A_CHARACTER], _STREAM[_INSIDE_A_CHARACTER:]),), usage=_USED
        ),
        Scenario("cut-everywhere", (stream(*(bytes([byte]) for byte in _STREAM)),), usage=_USED),
        Scenario(
            "packed",
            (stream(_PACKED[:30], _PACKED[30:], headers=SSE | {"content-encoding": "gzip"}),),
            usage=_USED,
        ),
        calling(
            "cut-in-a-call",
            stream(_CALL[:_INSIDE_AN_ARGUMENT], _CALL[_INSIDE_AN_ARGUMENT:]),
            stream(_STREAM),
            KOELN,
            usage=_USED,
            ids=("call_1",),
        ),
        calling(
            "cut-everywhere-in-a-call",
            stream(*(bytes([byte]) for byte in _CALL)),
            stream(_STREAM),
            KOELN,
            usage=_USED,
            ids=("call_1",),
        ),
        calling(
            "calls-in-the-old-way",
            stream(
                _chunk(b'{"role":"assistant","content":null,"function_call":{"name":"weather","arguments":""}}')
                + _chunk(rb'{"function_call":{"arguments":"{\"city\": \"Ber"}}')
                + _chunk(rb'{"function_call":{"arguments":"lin\"}"}}')
                + _chunk(b"{}", b'"function_call"')
                + DONE
            ),
            _UNCOUNTED,
            BERLIN,
        ),
        Scenario("gpt-4o-mini", (_UNCOUNTED,)),  # a model whose tokens are known
        calling("gpt-4.1", stream(_CALL.replace(_COUNT, b"")), _UNCOUNTED, KOELN, ids=("call_1",)),
        calling(
            "whole-with-calls",
            body(
                r'{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"Let me '
                r'see.","reasoning_content":"Hm.","tool_calls":[{"id":"call_1","type":"function","function":{"name":'
                r'"weather","arguments":"{\"city\": \"Berlin\"}"}},{"id":"call_2","type":"function","function":{"name":'
                r'"weather","arguments":"{\"city\": \"Köln\"}"}}]},"finish_reason":"tool_calls"}]}'.encode()
            ),
            _UNCOUNTED,
            BERLIN,
            KOELN,
            said="Let me see.",
            ids=("call_1", "call_2"),
            hidden="Hm.",
        ),
        Scenario("labelled-as-json", (stream(_STREAM, headers={"content-type": "application/json"}),), usage=_USED),
        Scenario("no-last-line-break", (stream(_STREAM.removesuffix(b"\n\n")),), usage=_USED),
        Scenario("ends-late", (stream(_STREAM, ends_after_s=0.05),), usage=_USED),
        Scenario("never-ends", (stream(_STREAM, ends_after_s=None),), usage=_USED),
        Scenario("whole", (body(_COMPLETION),), usage=_USED),
        Scenario("whole-and-indented", (body(json.dumps(json.loads(_COMPLETION), indent=2).encode()),), usage=_USED),
        Scenario(
            "whole-and-refused",
            (
                body(
                    b'{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":null,'
                    b'"refusal":"No, Jane."},"finish_reason":"stop"}]}'
                ),
            ),
            text="No, Jane.",
        ),
        Scenario(
            "whole-with-a-thought",
            (body(_COMPLETION.replace(b'"content":"', rb'"content":"<think>\nHm.\n</think>\n\n')),),
            usage=_USED,
        ),
        Scenario(
            "whole-in-parts",
            (
                body(
                    _COMPLETION.replace(
                        '"Grüße, Jane!"'.encode(),
                        '[{"type":"text","text":"Grüße, "},{"type":"text","text":"Jane!"}]'.encode(),
                    )
                ),
            ),
            usage=_USED,
        ),
        refused(
            "is-a-login-page",
            body(_LOGIN, 200, _HTML),
            "answered with text/html",
            "check ADLATUS_MODEL_BASE_URL",
        ),
        refused("is-plain", body(b"OK", 200, {"content-type": "text/plain"}), "check ADLATUS_MODEL_BASE_URL"),
        refused("is-another-program", body(b'{"status":"ok"}'), "check ADLATUS_MODEL_BASE_URL"),
        refused("has-no-content", Answer((), 204, {}, chunked=False), "status 204", "check ADLATUS_MODEL_BASE_URL"),
        refused(
            "moved",
            Answer((b"",), 307, {"location": "https://models.example/v1/chat/completions"}, chunked=False),
            "redirects elsewhere (307)",
            "correct ADLATUS_MODEL_BASE_URL",
        ),
        refused("moved-for-good", Answer((b"",), 301, {"location": "/v2"}, chunked=False), "redirects elsewhere (301)"),
        refused(
            "is-too-big",
            body(
                b"<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body>\r\n<center><h1>"
                b"413 Request Entity Too Large</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n",
                413,
                _HTML,
            ),
            "(413): 413 Request Entity Too Large 413 Request Entity Too Large nginx",
            code="invalid_prompt",
        ),
        refused(
            "is-unpaid",
            body(b'{"error":{"message":"Insufficient Balance"}}', 402),
            "Insufficient Balance",
            code="rate_limit_exceeded",
        ),
        Scenario("ends-empty-once", (stream(), stream(_STREAM)), usage=_USED, heard=2),
        Scenario(
            "is-behind-a-restart",
            (body(b"<html><h1>502 Bad Gateway</h1></html>", 502, _HTML), stream(_STREAM)),
            usage=_USED,
            heard=2,
        ),
    ),
)
