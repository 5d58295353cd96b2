"""A chat page in fifty lines: every visitor has a thread, and sees the answers while they are written.

Offline, from the root of the repository; any question is answered by the rehearsal model:

    make run

    export OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=any    # in another terminal; needs `openai`
    .venv/bin/pip install openai
    .venv/bin/python examples/chat_page.py                                # and open http://127.0.0.1:8080

With a real model start the server as docs/getting-started.md says.
"""

import os
import warnings
from collections.abc import Iterator
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Form
from fastapi.responses import HTMLResponse, PlainTextResponse, StreamingResponse
from openai import OpenAI

PAGE = """<!doctype html><meta charset="utf-8"><title>Chat</title>
<style>
  body { font: 1.1rem/1.5 system-ui; max-width: 40rem; margin: 2rem auto; padding: 0 1rem }
  p { white-space: pre-wrap } .user { font-weight: bold } input { width: 80%; font: inherit }
</style>
<main></main><form><input name="question" autofocus autocomplete="off"> <button>Ask</button></form>
<script>
  const form = document.querySelector('form');
  const thread = fetch('/threads', { method: 'POST' }).then((response) => response.text());
  const say = (className, textContent) => {
    const p = Object.assign(document.createElement('p'), { className, textContent });
    document.querySelector('main').append(p);
    return p;
  };
  form.onsubmit = async (event) => {
    event.preventDefault();
    const body = new URLSearchParams(new FormData(form));
    say('user', form.question.value);
    form.reset();
    const answer = say('assistant', '');
    const { body: stream } = await fetch(`/threads/${await thread}/answers`, { method: 'POST', body });
    const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
    for (let piece; !(piece = await reader.read()).done; ) answer.textContent += piece.value;
  };
</script>"""

warnings.simplefilter("ignore", DeprecationWarning)  # so the SDK calls all Assistants
app = FastAPI()
client = OpenAI()
assistant = client.beta.assistants.create(model="gpt-4o", instructions="You are a friendly tutor.")
app.get("/", response_class=HTMLResponse)(lambda: PAGE)
app.post("/threads", response_class=PlainTextResponse)(lambda: client.beta.threads.create().id)


@app.post("/threads/{thread_id}/answers")
def answer(thread_id: str, question: Annotated[str, Form()]) -> StreamingResponse:
    return StreamingResponse(pieces(thread_id, question), media_type="text/plain; charset=utf-8")


def pieces(thread_id: str, question: str) -> Iterator[str]:
    client.beta.threads.messages.create(thread_id, role="user", content=question)
    with client.beta.threads.runs.stream(thread_id=thread_id, assistant_id=assistant.id) as stream:
        yield from stream.text_deltas
        if error := stream.get_final_run().last_error:
            yield error.message


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8080")))
