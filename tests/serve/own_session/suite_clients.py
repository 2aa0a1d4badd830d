"""Clients of the API that applications use. Run by the Python of .tools/suites: `suite_clients.py URL MODEL`, the key in OPENAI_API_KEY."""

# pyright: reportMissingImports=false
from __future__ import annotations

import sys

import litellm
import openai
import pytest
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI

QUESTION = "Say hello."
TOOL = {
    "type": "function",
    "function": {
        "name": "greet",
        "parameters": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    },
}


def with_litellm(url: str, model: str) -> None:
    """Get an answer, a stream and a forced tool call, and read a wrong key as such."""
    common = {
        "model": f"openai/{model}",
        "api_base": url,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": 64,
    }
    answer = litellm.completion(**common)
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens > 0
    assert "".join(event.choices[0].delta.content or "" for event in litellm.completion(**common, stream=True))
    called = litellm.completion(**common, tools=[TOOL], tool_choice={"type": "function", "function": {"name": "greet"}})
    assert called.choices[0].message.tool_calls[0].function.name == "greet"
    with pytest.raises(litellm.AuthenticationError, match="Authorization: Bearer KEY"):
        litellm.completion(**common, api_key="sk-wrong", num_retries=0)


def with_langchain(url: str, model: str) -> None:
    """Get an answer, a stream and an answer in a schema, and read a wrong key as such."""
    chat = ChatOpenAI(model=model, base_url=url, max_completion_tokens=64, max_retries=0)
    answer = chat.invoke([HumanMessage(QUESTION)])
    assert answer.text
    assert answer.usage_metadata["output_tokens"] > 0
    assert "".join(event.text for event in chat.stream([HumanMessage(QUESTION)]))
    schema = {"title": "greeting", "type": "object", "properties": {"hello": {"type": "boolean"}}, "required": ["hello"]}
    structured = chat.with_structured_output(schema, method="json_schema").invoke([HumanMessage(QUESTION)])
    assert isinstance(structured["hello"], bool)
    with pytest.raises(openai.AuthenticationError) as refused:
        ChatOpenAI(model=model, base_url=url, api_key="sk-wrong", max_retries=0).invoke(QUESTION)
    assert refused.value.code == "invalid_api_key"


if __name__ == "__main__":
    with_litellm(*sys.argv[1:])
    with_langchain(*sys.argv[1:])
