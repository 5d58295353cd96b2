"""Where every operation stands: of OpenAI's schema, and of what the server offers beyond it."""

from adlatus.api.relay import PATHS
from tests.contract.tour import RUN

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

_STORE = "/vector_stores/{vector_store_id}"
NOT_YET = {
    **dict.fromkeys(
        (
            ("GET", "/vector_stores"),
            ("POST", "/vector_stores"),
            ("DELETE", _STORE),
            ("GET", _STORE),
            ("POST", _STORE),
            ("POST", f"{_STORE}/file_batches"),
            ("GET", f"{_STORE}/file_batches/{{batch_id}}"),
            ("POST", f"{_STORE}/file_batches/{{batch_id}}/cancel"),
            ("GET", f"{_STORE}/file_batches/{{batch_id}}/files"),
            ("GET", f"{_STORE}/files"),
            ("POST", f"{_STORE}/files"),
            ("DELETE", f"{_STORE}/files/{{file_id}}"),
            ("GET", f"{_STORE}/files/{{file_id}}"),
            ("POST", f"{_STORE}/files/{{file_id}}"),
            ("GET", f"{_STORE}/files/{{file_id}}/content"),
            ("POST", f"{_STORE}/search"),
        ),
        "issue 5",
    ),
}
MOST_NOT_YET = 16
"""May only be lowered: what was offered once stays offered."""
