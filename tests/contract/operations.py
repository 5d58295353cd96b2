"""Where every operation stands: of OpenAI's schema, and of what the server offers beyond it."""

from adlatus.api.relay import PATHS
from tests.contract.tour import RUN, Operation

HANDED_ON = {("POST", path) for path in PATHS}
"""Answered by model endpoints, in their own words."""

EXTENSIONS = {
    ("GET", "/threads"): "lists threads, which the original showed in its dashboard only",
    ("GET", f"{RUN}/events"): "follows a run's stream from any of its events on, for clients that were cut off",
    ("POST", "/completions"): "handed on to the model's endpoint",
    ("POST", "/moderations"): "handed on to the model's endpoint",
    ("POST", "/responses"): "handed on to the model's endpoint",
}
"""Offered, and not in the schema."""

NOT_OFFERED = {
    ("GET", "/chat/completions"): "lists stored completions, and none are stored",
    ("DELETE", "/models/{model}"): "deletes fine-tuned models, and none are made; answers 404 or 403 as the original",
}

NOT_YET: dict[Operation, str] = {}
"""Operations of the schema that are still to come, each with what it waits for."""

MOST_NOT_YET = 0
"""May only be lowered: what was offered once stays offered."""
