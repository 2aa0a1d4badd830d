"""Until the laboratory uses rayline_cli.clients.openai."""

from typing import Any

from rayline_cli.clients.openai import Answer, NoAnswer, OpenAiClient

__all__ = ["Answer", "NoAnswer", "ask"]


def ask(base_url: str, model_id: str, *, api_key: str | None, **options: Any) -> Answer:
    """Ask a model one question. Raises NoAnswer."""
    with OpenAiClient(base_url, api_key) as client:
        return client.ask(model_id, **options)
