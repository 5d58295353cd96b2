"""What model servers say when they fail, whichever server it is: their words, and what those mean. Pure.

Each server has a shape of its own, and a proxy passes on the shapes of others, so that the words decide where the
marks do not.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

import orjson

Code = Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
"""What `last_error.code` of a run may be."""

_OUT_OF_QUOTA = {
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "budget_exceeded",  # LiteLLM, of a key
}
_RATE_LIMIT = {"429", "rate_limit_exceeded", "rate_limit_error"}
_PROMPT = {
    "400",
    "413",
    "422",
    "invalid_request_error",
    "content_filter",
    "context_length_exceeded",
    "exceed_context_size_error",
    "badrequesterror",
}
_ASKED_WAIT = re.compile(r"(?:try again in|retry (?:after|in)) (\d+(?:\.\d+)?) ?(ms|s)", re.IGNORECASE)
_MARKUP = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Fault:
    """An error in a server's words. `marks` are its code and type in lower case."""

    said: str
    marks: frozenset[str] = frozenset()

    @property
    def code(self) -> Code:
        """The fault as one of a run, where no HTTP status tells more."""
        if self.marks & _RATE_LIMIT or self.out_of_quota:
            return "rate_limit_exceeded"
        return "invalid_prompt" if self.marks & _PROMPT else "server_error"

    @property
    def out_of_quota(self) -> bool:
        """Whether somebody has to pay first, so that waiting is no help."""
        return bool(self.marks & _OUT_OF_QUOTA)

    @property
    def loading(self) -> bool:
        """Whether the server is there but its model is not yet."""
        return "unavailable_error" in self.marks or "loading" in self.said.lower()

    def of_the_model(self, status: int) -> bool:
        """Whether it is the model's name that is unknown: not the address, and not another fault of the request."""
        said = self.said.lower()
        if status == 404:
            return "model" in said or "deployment" in said
        return "invalid model name" in said  # LiteLLM says so with 400

    @property
    def asked_wait_s(self) -> float | None:
        """The seconds that the words ask to wait."""
        found = _ASKED_WAIT.search(self.said)
        return float(found[1]) / (1000 if found[2].lower() == "ms" else 1) if found else None


def read(content: bytes) -> Fault:
    """The fault in the body of an HTTP error."""
    try:
        return of(orjson.loads(content))
    except orjson.JSONDecodeError:
        return Fault(words(content))


def of(parsed: Any) -> Fault:
    """The fault in JSON: OpenAI's shape, or what other servers send instead."""
    if isinstance(parsed, list) and len(parsed) == 1:  # Gemini's
        [parsed] = parsed
    if not isinstance(parsed, dict):
        return Fault(_dumped(parsed))
    error = parsed.get("error", parsed.get("detail", parsed.get("message")))
    described = error if isinstance(error, dict) else parsed
    said = error.get("message") if isinstance(error, dict) else error
    return Fault(
        said[:500] if isinstance(said, str) else _dumped(parsed),
        frozenset(str(mark).lower() for name in ("code", "type") if isinstance(mark := described.get(name), str | int)),
    )


def is_fault(chunk: dict[str, Any]) -> bool:
    """Whether a chunk of a stream is an error in its place: with `error`, or as older versions of vLLM send it."""
    return bool(chunk.get("error")) or chunk.get("object") == "error"


def words(content: bytes) -> str:
    """The beginning of a body that is not JSON, without its markup."""
    text = content[:5000].decode(errors="replace")
    if text.lstrip().startswith("<"):
        text = _MARKUP.sub(" ", text)
    return " ".join(text.split())[:200]


def _dumped(parsed: Any) -> str:
    try:
        return orjson.dumps(parsed)[:200].decode(errors="replace")
    except orjson.JSONEncodeError:  # it reads deeper nesting than it writes
        return "something nested too deep to be shown"
