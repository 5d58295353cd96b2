"""Blocks of code that `test_blocks.py` neither runs nor checks, with the reason. This list only shrinks."""

NEVER: dict[tuple[str, str], str] = {
    ("docs/migrating.md", "from langchain_classic.agents.openai_assistant import OpenAIAssistantRunnable"): (
        "needs LangChain: tests/examples/test_frameworks.py runs it, nightly"
    ),
    ("docs/migrating.md", "from openai import AsyncOpenAI"): (
        "needs Semantic Kernel: tests/examples/test_frameworks.py runs it, nightly"
    ),
    ("docs/migrating.md", '-AssistantClient client = new(Environment.GetEnvironmentVariable("OPENAI_API_KEY"));'): (
        "needs .NET, which no Python or npm package brings"
    ),
}
"""By document and first line."""

MOST = 3
"""How many there may be."""
