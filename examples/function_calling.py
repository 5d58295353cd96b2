"""Function calling: the model decides which functions of this program to call, and the program calls them.

Offline, from the root of the repository, with a model that plays `rehearsal.yaml`:

    ADLATUS_REHEARSAL_SCRIPT=examples/rehearsal.yaml make run

    export OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=any    # in another terminal; needs `openai`
    .venv/bin/pip install openai
    .venv/bin/python examples/function_calling.py

With a real model start the server as docs/getting-started.md says, and ask what you like:

    .venv/bin/python examples/function_calling.py "How many lamps are left?"
"""

import json
import sys
import warnings
from collections.abc import Callable

from openai import AssistantEventHandler, OpenAI
from openai.lib.streaming import AssistantStreamManager
from openai.types.beta import FunctionToolParam
from openai.types.beta.threads import Run
from openai.types.beta.threads.required_action_function_tool_call import Function
from openai.types.beta.threads.run_submit_tool_outputs_params import ToolOutput

warnings.simplefilter("ignore", DeprecationWarning)  # so the SDK calls all Assistants

QUESTION = "Is a helmet in stock? If so, order two of them."
STOCK = {"helmet": 3, "lamp": 7, "bell": 0}


def count_in_stock(article: str) -> int:
    return STOCK[article]


def order(article: str, pieces: int) -> str:
    if pieces > STOCK[article]:
        raise ValueError(f"only {STOCK[article]} are left")
    STOCK[article] -= pieces
    return f"ordered, {STOCK[article]} left"


FUNCTIONS: dict[str, Callable[..., object]] = {"count_in_stock": count_in_stock, "order": order}


def tool(name: str, description: str, **parameters: str) -> FunctionToolParam:
    """A function as the model is told of it."""
    properties = {parameter: {"type": kind} for parameter, kind in parameters.items()}
    schema: dict[str, object] = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


TOOLS = [
    tool("count_in_stock", "How many pieces of an article are in stock.", article="string"),
    tool("order", "Order so many pieces of an article.", article="string", pieces="integer"),
]


def called(function: Function) -> str:
    """What a function gives, or why it does not: the model can correct itself."""
    print(f"[{function.name} {function.arguments}]")
    try:
        return json.dumps(FUNCTIONS[function.name](**json.loads(function.arguments)))
    except (KeyError, TypeError, ValueError) as error:
        return json.dumps({"error": f"{type(error).__name__}: {error}"})


def told(streaming: AssistantStreamManager[AssistantEventHandler]) -> Run:
    """Print what the model says, while it says it, until the run ends or waits for functions."""
    with streaming as stream:
        for text in stream.text_deltas:
            print(text, end="", flush=True)
        return stream.get_final_run()


def main(question: str) -> None:
    runs = (client := OpenAI()).beta.threads.runs
    assistant = client.beta.assistants.create(model="gpt-4o", instructions="You sell bicycle parts.", tools=TOOLS)
    thread = client.beta.threads.create(messages=[{"role": "user", "content": question}])
    run = told(runs.stream(thread_id=thread.id, assistant_id=assistant.id))
    while run.required_action:
        calls = run.required_action.submit_tool_outputs.tool_calls
        outputs: list[ToolOutput] = [{"tool_call_id": call.id, "output": called(call.function)} for call in calls]
        run = told(runs.submit_tool_outputs_stream(run_id=run.id, thread_id=thread.id, tool_outputs=outputs))
    print(run.last_error.message if run.last_error else "")


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or QUESTION)
