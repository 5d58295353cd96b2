"""File search over a folder: an assistant answers from its files, and says from which.

Offline, from the root of the repository, with a model that plays `rehearsal.yaml`:

    ADLATUS_REHEARSAL_SCRIPT=examples/rehearsal.yaml make run

    export OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=any    # in another terminal; needs `openai`
    .venv/bin/pip install openai
    .venv/bin/python examples/file_search_folder.py

With a real model start the server as docs/getting-started.md says, and search a folder of your own:

    .venv/bin/python examples/file_search_folder.py docs "How long is a lease?"
"""

import sys
import warnings
from pathlib import Path

from openai import OpenAI
from openai.types.beta.threads import Message

warnings.simplefilter("ignore", DeprecationWarning)  # so the SDK calls all Assistants

FOLDER = Path(__file__).with_name("handbook")
QUESTION = "How much is paid for meals when I travel?"
SUFFIXES = {".docx", ".html", ".md", ".pdf", ".pptx", ".txt"}


def fill(client: OpenAI, folder: Path) -> str:
    """The id of a vector store with the files of a folder; it expires when nobody has asked it for a day."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    store = client.vector_stores.create(name=folder.name, expires_after={"anchor": "last_active_at", "days": 1})
    batch = client.vector_stores.file_batches.upload_and_poll(store.id, files=files, poll_interval_ms=100)
    print(f"[{batch.file_counts.completed} of {len(files)} files can be searched]")
    for file in client.vector_stores.file_batches.list_files(batch.id, vector_store_id=store.id, filter="failed"):
        print(f"[{file.id}: {file.last_error.message if file.last_error else 'failed'}]")
    return store.id


def with_footnotes(client: OpenAI, message: Message) -> str:
    """The text of a message whose citations have become numbers, and below it what they stand for."""
    [text] = [part.text for part in message.content if part.type == "text"]
    shown, notes = text.value, ""
    for number, annotation in enumerate(text.annotations, 1):
        shown = shown.replace(annotation.text, f" [{number}]")
        if annotation.type == "file_citation":
            cited = annotation.file_citation
            quote = getattr(cited, "quote", "")  # newer SDKs do not know it, but keep it
            notes += f"\n[{number}] {client.files.retrieve(cited.file_id).filename}: “{quote}”"
    return shown + notes


def main(folder: Path, question: str) -> None:
    client = OpenAI()
    assistant = client.beta.assistants.create(
        model="gpt-4o",
        instructions="Answer from the files alone.",
        tools=[{"type": "file_search"}],
        tool_resources={"file_search": {"vector_store_ids": [fill(client, folder)]}},
    )
    thread = client.beta.threads.create(messages=[{"role": "user", "content": question}])
    run = client.beta.threads.runs.create_and_poll(thread_id=thread.id, assistant_id=assistant.id, poll_interval_ms=100)
    if run.status != "completed":
        raise SystemExit(f"The run is {run.status}: {run.last_error.message if run.last_error else run.id}")
    print(with_footnotes(client, client.beta.threads.messages.list(thread.id, limit=1).data[0]))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else FOLDER, " ".join(sys.argv[2:]) or QUESTION)
