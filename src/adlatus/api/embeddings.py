"""The answer of `POST /v1/embeddings` where the local model gives it, in OpenAI's shape."""

import asyncio
import base64

import orjson
from fastapi import Response
from pydantic import ValidationError

from adlatus.api.routers import json_response
from adlatus.backends import tokens
from adlatus.backends.embeddings import Vector
from adlatus.backends.embeddings.local import DIMENSIONS, NAME, LocalModel
from adlatus.backends.refusals import ModelError
from adlatus.errors import InvalidRequest, Unavailable
from adlatus.validation import from_validation
from adlatus.wire.common import Json
from adlatus.wire.embeddings import MOST_CHARACTERS, MOST_TOKENS, MOST_TOKENS_TOGETHER, CreateEmbeddingRequest


async def embed(model: LocalModel, asked: Json) -> Response:
    """Embed the inputs of a request. Raises `InvalidRequest`, `Unavailable`."""
    try:
        request = CreateEmbeddingRequest.model_validate(asked)
    except ValidationError as error:
        raise from_validation(error.errors(), asked) from error
    if request.dimensions not in (None, DIMENSIONS):
        raise InvalidRequest(f"This model does not support specifying dimensions: it has {DIMENSIONS}.")
    texts = [await _text(given) for given in request.inputs]
    try:
        read = await model.tokens(texts)
        _refuse_too_many([len(one) for one in read])
        windows = await model.windows_of(read)
    except ModelError as error:
        raise Unavailable(error.message) from error
    packed = request.encoding_format == "base64"
    used = sum(windows.tokens)
    answer = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _base64(vector) if packed else vector}
            for index, vector in enumerate(windows.pooled())
        ],
        "model": NAME,
        "usage": {"prompt_tokens": used, "total_tokens": used},
    }
    return json_response(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY))


async def _text(given: str | list[int]) -> str:
    """An input as text. Tokens are those of cl100k, which clients take for every embedding model."""
    if isinstance(given, str):
        if len(given) > MOST_CHARACTERS:
            raise InvalidRequest(
                f"Invalid 'input': string too long. Expected a string with maximum length {MOST_CHARACTERS}, but got "
                f"a string with length {len(given)} instead.",
                param="input",
                code="string_above_max_length",
            )
        return given
    text = await asyncio.to_thread(tokens.text_of, given)
    if text is None:
        raise InvalidRequest(
            "Invalid 'input': these are no tokens of the encoding cl100k_base. Send the text itself.",
            param="input",
            code="invalid_value",
        )
    return text


def _refuse_too_many(counts: list[int]) -> None:
    if max(counts) > MOST_TOKENS:
        raise InvalidRequest(
            f"This model's maximum context length is {MOST_TOKENS} tokens, however you requested {max(counts)} tokens "
            f"({max(counts)} in your prompt; 0 for the completion). Please reduce your prompt; or completion length."
        )
    if sum(counts) > MOST_TOKENS_TOGETHER:
        raise InvalidRequest(
            f"Requested {sum(counts)} tokens, max {MOST_TOKENS_TOGETHER} tokens per request",
            code="max_tokens_per_request",
        )


def _base64(vector: Vector) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
