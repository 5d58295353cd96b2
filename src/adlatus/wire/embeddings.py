"""Embeddings, as far as this server makes them itself. Limits and sizes are the original's."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from adlatus.wire.common import RequestModel

MOST_INPUTS = 2_048
MOST_TOKENS = 8_192
MOST_TOKENS_TOGETHER = 300_000

MOST_CHARACTERS = 16 * MOST_TOKENS
"""What is looked at of one input: more are more tokens than an input may have, or no text."""

InputText = Annotated[str, StringConstraints(min_length=1)]
Token = Annotated[int, Field(ge=0, lt=2**31)]
InputTokens = Annotated[list[Token], Field(min_length=1, max_length=MOST_TOKENS)]


class CreateEmbeddingRequest(RequestModel):
    """`input` is one text, several, the tokens of one, or of several."""

    model: str
    input: (
        InputText
        | Annotated[list[InputText], Field(min_length=1, max_length=MOST_INPUTS)]
        | InputTokens
        | Annotated[list[InputTokens], Field(min_length=1, max_length=MOST_INPUTS)]
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int | None, Field(ge=1)] = None
    user: str | None = None

    @property
    def inputs(self) -> list[str | list[int]]:
        """The texts, or their tokens, one by one."""
        match self.input:
            case str() as text:
                return [text]
            case [int(), *_] as tokens:
                return [[token for token in tokens if isinstance(token, int)]]
            case several:
                return [one for one in several if not isinstance(one, int)]
