"""What a relay changes in a request, and what it keeps of an answer's headers."""

import json

import httpx
import pytest

from adlatus.backends.relay import answer_headers, with_model


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"model":"a"}', '{"model":"new"}'),
        (' {\n "model" : "a" , "n": 1.0 } ', ' {\n "model" : "new" , "n": 1.0 } '),
        ('{"x":{"model":"a"},"model":"a","y":["model","a"]}', '{"x":{"model":"a"},"model":"new","y":["model","a"]}'),
        ('{"messages":[{"content":"\\"model\\": \\\\"}],"model":"a"}', None),
        ('{"content":"{\\"model\\":\\"a\\"","model":"a"}', None),
        ('{"mod\\u0065l":"a"}', '{"mod\\u0065l":"new"}'),
        ('{"model":"a","model":"b"}', '{"model":"new","model":"new"}'),
        ('{"seed":123456789012345678901234567890,"t":1e-7,"model":"a"}', None),
        ('{"x":"model","model":"a"}', '{"x":"model","model":"new"}'),
        ('{"input":"x"}', '{"model":"new","input":"x"}'),
        (" { } ", ' {"model":"new" } '),
        ('{"größe":"model","model":"模型"}', '{"größe":"model","model":"new"}'),
    ],
)
def test_only_the_model_changes(body: str, expected: str | None) -> None:
    changed = with_model(body.encode(), "new").decode()
    assert changed == (expected or body.replace('"model":"a"', '"model":"new"'))
    assert json.loads(changed) == json.loads(body) | {"model": "new"}


def test_a_name_with_quotes_is_still_one_string() -> None:
    assert json.loads(with_model(b'{"model":"a"}', '"},{"')) == {"model": '"},{"'}


def test_a_large_body_is_not_looked_through_character_by_character() -> None:
    image = "A" * 10_000_000
    body = json.dumps({"messages": [{"role": "user", "content": image}], "model": "a"})
    assert with_model(body.encode(), "b").decode() == body.replace('"a"', '"b"')


def test_headers_of_a_connection_or_a_site_are_kept_back() -> None:
    sent = {
        "Content-Type": "application/json",
        "x-ratelimit-remaining-requests": "9",
        "Retry-After": "3",
        "Transfer-Encoding": "chunked",
        "Connection": "keep-alive, X-Hop",
        "x-hop": "1",
        "Set-Cookie": "a=b",
        "Server": "other",
        "Strict-Transport-Security": "max-age=1",
    }
    kept = [name.lower() for name, _ in answer_headers(httpx.Response(200, headers=sent))]
    assert kept == [b"content-type", b"x-ratelimit-remaining-requests", b"retry-after"]
