"""The errors of Adlatus and their one shape on the wire.

Owns every error body, message and code that a client can see; knows nothing of HTTP frameworks, rows or runs.
"""

import math
from collections.abc import Sequence
from typing import Literal

BAD_JSON = (
    "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP library "
    "correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON. If you have trouble "
    "figuring out how to fix this, please contact us through our help center at help.openai.com.)"
)

CLIENT_LEFT = "The client left before the end of its request."

MAX_NAME = 256
"""The longest name of a client's that a message repeats whole: an error must not be as long as the request."""
MAX_LISTED = 128
"""How many names a message lists."""


class StartupError(Exception):
    """A component cannot be used; the message tells the operator what to do. Ends the process with exit code 1."""


class ApiError(Exception):
    """An error that the client sees: HTTP status and the four fields of OpenAI's error object."""

    status = 400
    type = "invalid_request_error"
    twofold = False
    """Whether the body says it twice, as only endpoints of files did. *Source*: recorded errors."""

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.headers = headers or {}


class InvalidRequest(ApiError):  # noqa: N818 - the wire's own noun
    """The request is wrong: 400. Never 409, which every SDK would send again."""


class Unauthorized(ApiError):  # noqa: N818
    """No key, or one that is not known: 401."""

    status = 401


class Forbidden(ApiError):  # noqa: N818
    """The guards of a server without keys say no: 403."""

    status = 403


class NotFound(ApiError):  # noqa: N818
    """The object does not exist in the caller's project: 404."""

    status = 404


class RateLimited(ApiError):  # noqa: N818
    """The project has reached a limit: 429. `kind` is `requests` or `tokens`; `retry_s` is when to come again."""

    status = 429

    def __init__(self, message: str, *, kind: Literal["requests", "tokens"], retry_s: float) -> None:
        milliseconds = max(1, math.ceil(retry_s * 1000))
        headers = {"retry-after-ms": str(milliseconds), "retry-after": str(math.ceil(milliseconds / 1000))}
        super().__init__(message, code="rate_limit_exceeded", headers=headers)
        self.type = kind


class QuotaExceeded(ApiError):  # noqa: N818
    """There is no room for more until something is deleted: 429, which the SDKs are told not to repeat."""

    status = 429
    type = "insufficient_quota"

    def __init__(self, message: str) -> None:
        super().__init__(message, code="storage_quota_exceeded", headers={"x-should-retry": "false"})


class Unavailable(ApiError):  # noqa: N818
    """A backend does not answer at the moment: 503 with `retry-after`."""

    status = 503
    type = "server_error"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"retry-after": "1"})


class DatabaseUnavailable(Unavailable):
    """The database does not answer: nothing can be kept, and nobody can say what is."""


class BadGateway(ApiError):  # noqa: N818
    """A model endpoint does not take this server's key, or does not answer as one: 502. Only the operator can help."""

    status = 502
    type = "server_error"


class ContentTooLarge(ApiError):  # noqa: N818
    """The request body is longer than this server reads: 413."""

    status = 413


class UrlTooLong(ApiError):  # noqa: N818
    """The URL is longer than this server reads: 414."""

    status = 414


class HeadTooLarge(ApiError):  # noqa: N818
    """The headers are more, or longer, than this server reads: 431."""

    status = 431


class RangeNotSatisfiable(ApiError):  # noqa: N818
    """No byte of the range that is asked for exists: 416."""

    status = 416


class InvalidFile(InvalidRequest):
    """What was sent is not as a file of that purpose has to be."""

    twofold = True


class FileNotFound(NotFound):
    """The file, or the file that a list should go on after, does not exist in the caller's project."""

    twofold = True


class GatewayError(ApiError):
    """What Azure's gateway refuses before the service hears of it, in its own shape of two fields."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message, code=code)
        self.status = status


class InternalError(ApiError):
    """A fault of ours: 500. The details are in the log only."""

    status = 500
    type = "server_error"

    def __init__(self) -> None:
        super().__init__(
            "The server had an error while processing your request. Sorry about that! "
            "The log of the server has the details under this response's x-request-id."
        )


class MethodNotAllowed(ApiError):  # noqa: N818
    """The path exists, the method does not: 405."""

    status = 405


def not_found(noun: str, object_id: str) -> NotFound:
    """The original's 404 for a `noun` such as `assistant`, `thread`, `run`. Source: field reports."""
    return NotFound(f"No {noun} found with id '{object_id}'.")


def unknown_model(model: str) -> NotFound:
    """The 404 of the original's other APIs, which say it in other words than *retrieve model*."""
    return NotFound(
        f"The model `{shortened(model, MAX_NAME)}` does not exist or you do not have access to it.",
        code="model_not_found",
    )


def no_such_file(file_id: str) -> FileNotFound:
    """*Source*: recorded errors."""
    return FileNotFound(f"No such File object: {file_id}", param="id")


def no_file_to_attach(file_id: str) -> NotFound:
    """The same of a file that a request names in its body. Source: inference from the one above."""
    return NotFound(f"No such File object: {file_id}", param="file_id")


def body(error: ApiError) -> dict[str, dict[str, str | None]]:
    """The JSON body of an error response, and of the data of an `error` event."""
    if isinstance(error, GatewayError):
        return {"error": {"code": error.code, "message": error.message}}
    told: dict[str, dict[str, str | None]] = {
        "error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    }
    if error.twofold:
        told["detail"] = {"message": error.message, "code": error.code}
    return told


def noun(value: object) -> str:
    """The JSON type of a value with its article, as messages name it."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a decimal"
        case str():
            return "a string"
        case list() | tuple():
            return "an array"
        case _:
            return "an object"


def shortened(text: str, limit: int = 64) -> str:
    """A text of a client as an error repeats it: its middle left out where it is long."""
    half = limit // 2 - 4
    return text if len(text) <= limit else f"{text[:half]}...{text[-half:]}"


def shortened_list(names: Sequence[str]) -> str:
    """Names as Python writes a list of them, in an error that must not be as long as the request."""
    shown = [shortened(name) for name in names[:MAX_LISTED]]
    return f"{shown}" if len(names) <= MAX_LISTED else f"{shown} and {len(names) - MAX_LISTED} more"
