"""Models that runs may name."""

from typing import Literal

from pydantic import Field

from adlatus.wire.common import WireObject


class Model(WireObject):
    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "system"


class ListModelsResponse(WireObject):
    object: Literal["list"] = "list"
    data: list[Model] = Field(default_factory=list)
