"""What is known of a component."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What is known of one component. `ok` is None where there is nothing to check."""

    component: str
    ok: bool | None
    found: str
    advice: str = ""
