"""Blocks of code that no test runs or checks, with the reason. This list only shrinks."""

NEVER: dict[tuple[str, str], str] = {
    ("docs/migrating.md", "from langchain_classic.agents.openai_assistant import OpenAIAssistantRunnable"): (
        "needs LangChain, fifty packages; it was tried by hand with langchain-classic 1.0.8"
    ),
    ("docs/migrating.md", "from openai import AsyncOpenAI"): (
        "needs Semantic Kernel, eighty packages; it was tried by hand with semantic-kernel 1.45.0"
    ),
    ("docs/migrating.md", '-AssistantClient client = new(Environment.GetEnvironmentVariable("OPENAI_API_KEY"));'): (
        "needs .NET, which no Python or npm package brings"
    ),
}
"""By document and first line."""

MOST = 3
"""How many there may be."""
