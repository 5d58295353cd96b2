"""Data analysis: the model writes Python for a table, the server executes it, and the charts are downloaded.

Offline, from the root of the repository, with a model that plays `rehearsal.yaml`:

    ADLATUS_REHEARSAL_SCRIPT=examples/rehearsal.yaml make run

    export OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=any    # in another terminal; needs `openai`
    .venv/bin/pip install openai
    .venv/bin/python examples/data_analysis.py

With a real model start the server as docs/getting-started.md says, and ask of a table of your own:

    .venv/bin/python examples/data_analysis.py table.csv "What stands out?"

What the code has shown and written lies in the working directory afterwards.
"""

import sys
import warnings
from pathlib import Path, PurePosixPath

from openai import AssistantEventHandler, OpenAI
from openai.types.beta.threads import Message, Text, TextDelta
from openai.types.beta.threads.runs import ToolCall, ToolCallDelta

warnings.simplefilter("ignore", DeprecationWarning)  # so the SDK calls all Assistants

TABLE = Path(__file__).with_name("sales.csv")
QUESTION = "Which shop grows faster? Draw a chart, and write the totals of each month to a file."


class Watching(AssistantEventHandler):
    """Prints code, what it prints, and the answer, while they come; keeps what can be downloaded."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, str] = {}  # ids by name

    def on_tool_call_delta(self, delta: ToolCallDelta, snapshot: ToolCall) -> None:
        if delta.type == "code_interpreter" and delta.code_interpreter:
            print(delta.code_interpreter.input or "", end="", flush=True)
            for output in delta.code_interpreter.outputs or []:
                if output.type == "logs":
                    print(f"\n| {output.logs}", flush=True)

    def on_text_delta(self, delta: TextDelta, snapshot: Text) -> None:
        print(delta.value or "", end="", flush=True)

    def on_message_done(self, message: Message) -> None:
        for number, part in enumerate(message.content, 1):
            if part.type == "image_file":
                self.files[f"chart-{number}.png"] = part.image_file.file_id
            elif part.type == "text":
                for annotation in part.text.annotations:
                    if annotation.type == "file_path":
                        self.files[PurePosixPath(annotation.text).name] = annotation.file_path.file_id


def main(table: Path, question: str) -> None:
    client, watching = OpenAI(), Watching()
    file = client.files.create(file=table, purpose="assistants")
    assistant = client.beta.assistants.create(
        model="gpt-4o",
        instructions="You analyse tables with pandas, and draw with matplotlib.",
        tools=[{"type": "code_interpreter"}],
        tool_resources={"code_interpreter": {"file_ids": [file.id]}},
    )
    thread = client.beta.threads.create(messages=[{"role": "user", "content": question}])
    with client.beta.threads.runs.stream(
        thread_id=thread.id, assistant_id=assistant.id, event_handler=watching
    ) as stream:
        run = stream.get_final_run()
    print(f"\n[{run.last_error.message}]" if run.last_error else "")
    for name, file_id in watching.files.items():
        Path(name).write_bytes(client.files.content(file_id).read())
        print(f"[{name}: {Path(name).stat().st_size} bytes]")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else TABLE, " ".join(sys.argv[2:]) or QUESTION)
