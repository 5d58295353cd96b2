"""The request floor: FastAPI and pydantic, one GET and one POST of an assistant's size, no database."""

from typing import Annotated, Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

app = FastAPI()


class CreateAssistant(BaseModel):
    """A request with the checks that any such route has."""

    model_config = ConfigDict(extra="forbid")

    model: str
    name: Annotated[str | None, Field(max_length=256)] = None
    instructions: Annotated[str | None, Field(max_length=256_000)] = None
    tools: list[dict[str, Any]] = []
    metadata: dict[str, str] = {}
    temperature: Annotated[float | None, Field(ge=0, le=2)] = 1.0


class Assistant(CreateAssistant):
    """The object that both routes answer with."""

    id: str
    object: Literal["assistant"] = "assistant"
    created_at: int


@app.get("/v1/assistants/{assistant_id}")
async def retrieve(assistant_id: str) -> Assistant:
    """An assistant that is made up on the spot."""
    return Assistant(id=assistant_id, created_at=1_700_000_000, model="rehearsal", name="Floor")


@app.post("/v1/assistants")
async def create(body: CreateAssistant) -> Assistant:
    """The assistant that was asked for, kept nowhere."""
    return Assistant(id="asst_floor", created_at=1_700_000_000, **body.model_dump())
