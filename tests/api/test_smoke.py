"""The README's six lines."""

from openai import OpenAI


def test_a_streamed_run_prints_the_answer(sdk: OpenAI) -> None:
    assistant = sdk.beta.assistants.create(model="gpt-4o", instructions="You are kind.")
    thread = sdk.beta.threads.create(messages=[{"role": "user", "content": "[[say: Hello, Jane!]]"}])
    with sdk.beta.threads.runs.stream(thread_id=thread.id, assistant_id=assistant.id) as stream:
        assert "".join(stream.text_deltas) == "Hello, Jane!"
