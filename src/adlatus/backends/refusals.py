"""What it means that a model endpoint does not answer as it should: the error of the run, and whether to try again."""

import random
import re

import httpx
import structlog

from adlatus.backends import faults
from adlatus.backends.routing import Endpoint
from adlatus.backends.upstreams import Answer, key_refused, the
from adlatus.settings import host_name

log = structlog.get_logger(__name__)

LOADING_POLL_S = 0.5
BACKOFF_S = 0.5
SHORTEST_KEY = 8
MAX_WAIT_S = 20.0
"""A `retry-after` above this is not waited for."""


class ModelError(Exception):
    """The model gave no answer, or only a part of one. `code` is one of a run's `last_error.code`.

    `said` is the part of the message that is the endpoint's: it may repeat what it was sent, so that the error as a
    string, which logs have, is without it.
    """

    def __init__(self, message: str, code: faults.Code, said: str = "") -> None:
        before, found, after = message.rpartition(said) if said else (message, "", "")
        super().__init__(f"{before}…{after}" if found else message)
        self.message = message
        self.code = code


class Again(Exception):  # noqa: N818 - not an error yet
    """This attempt failed in a way that another may not."""

    def __init__(self, error: ModelError, wait_s: float | None = None, *, loading: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait_s = wait_s
        self.loading = loading


def refusal(response: Answer, content: bytes, endpoint: Endpoint, model: str | None) -> Again:
    """What an HTTP status other than 200 means: `Again` where another attempt may help, else raises `ModelError`.

    `model` is None where no model was asked for.
    """
    status, fault, where = response.status_code, faults.read(without_keys(content, endpoint)), the(endpoint)
    match status:
        case 429 if not fault.out_of_quota:
            error = ModelError(fault.said or "Rate limit reached for the model.", "rate_limit_exceeded", fault.said)
            return Again(error, _asked_wait_s(response, fault))
        case 503 if fault.loading:
            said = f"{where} is still loading its model ({status}): wait until it has, then run again. It said: "
            return Again(ModelError(said + fault.said, "server_error", fault.said), LOADING_POLL_S, loading=True)
        case _ if status >= 500 or status == httpx.codes.REQUEST_TIMEOUT:
            return Again(ModelError(f"{where} failed ({status}): {fault.said}", "server_error", fault.said))
        case _:
            raise _final(response, fault, endpoint, model)


def _final(response: Answer, fault: faults.Fault, endpoint: Endpoint, model: str | None) -> ModelError:
    """A refusal that another attempt would meet again."""
    status, where, set_by = response.status_code, the(endpoint), endpoint.set_by
    match status:
        case 402 | 429:
            used_up = fault.said or "The quota of the model endpoint is used up."
            return ModelError(used_up, "rate_limit_exceeded", fault.said)
        case 401 | 403:
            log.warning("model endpoint refused its key", endpoint=endpoint.name, status=status)
            return ModelError(key_refused(endpoint, status), "server_error")  # what it said may repeat the key
        case 400 | 404 if model and fault.of_the_model(status):
            what = f"does not know the model '{model}' ({status}): name one that it has, or set {set_by['model']}."
        case 404:
            what = f"has nothing at this address (404): check {set_by['base_url']}, which usually ends in /v1."
        case 400 | 413 | 422:
            return ModelError(f"{where} refused the request ({status}): {fault.said}", "invalid_prompt", fault.said)
        case 301 | 302 | 303 | 307 | 308:
            location = host_name(response.headers.get("location", ""))  # of the rest some may be secret
            log.warning("model endpoint redirects", endpoint=endpoint.name, status=status, to=location[:200])
            what = f"redirects elsewhere ({status}), which is not followed: correct {set_by['base_url']}."
        case 201 | 202 | 204:
            what = f"answered with status {status}, not as a model endpoint does: check {set_by['base_url']}."
        case _:
            return ModelError(f"{where} answered with status {status}: {fault.said}", "server_error", fault.said)
    it_said = f" It said: {fault.said}" if fault.said else ""
    return ModelError(f"{where} {what}{it_said}", "server_error", fault.said)


def without_keys(content: bytes, endpoint: Endpoint) -> bytes:
    """What an endpoint says, as long as it is, without this server's keys for it, should it repeat them."""
    for value in endpoint.headers.values():
        if len(secret := value.removeprefix("Bearer ").encode()) >= SHORTEST_KEY:
            content = content.replace(secret, b"*" * len(secret))
    return content


def _asked_wait_s(response: Answer, fault: faults.Fault) -> float | None:
    """The seconds that a server asks to wait: in OpenAI's and Azure's exact header, the standard one, or in words."""
    for header, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        if re.fullmatch(r"\d+(\.\d+)?", value := response.headers.get(header, ""), re.ASCII):
            return float(value) * unit_s
    return fault.asked_wait_s


def wait_before(attempt: int, asked: float | None) -> float | None:
    """Seconds to wait before an attempt, the second or later; None if the upstream asks for more than we wait."""
    if asked is not None:
        return asked if asked <= MAX_WAIT_S else None
    jitter = random.uniform(0.75, 1.25)  # noqa: S311
    return float(min(BACKOFF_S * 2 ** (attempt - 2), 8.0) * jitter)


def not_a_model(endpoint: Endpoint, response: Answer) -> ModelError:
    """Something answers there, with success, but not as a model does: a login page, another program."""
    kind = response.headers.get("content-type", "nothing").partition(";")[0]
    return ModelError(
        f"{the(endpoint)} answered with {kind}, not as a model endpoint does: check {endpoint.set_by['base_url']}, "
        "which usually ends in /v1, and what stands between here and there.",
        "server_error",
    )


def not_whole(endpoint: Endpoint, begun: bool, gave_up: str | None) -> ModelError:
    """An answer that ends without its end. `gave_up` is the reason that the model's server gave, if any."""
    how = "broke off in the middle of its answer" if begun else "ended its answer before it began"
    how = f"gave up its answer ({gave_up})" if gave_up else how
    return ModelError(f"{the(endpoint)} {how}.", "server_error")
