"""The gate of a service with prefill and decode replicas: behind the key, it refuses what the two engines cannot do together.

Log probabilities of the prompt: decode has not computed the prompt, so vLLM 0.29 reads memory that nothing was written to. Its engine
then answers every request with an error (v1/engine/logprobs.py, _update_prompt_logprobs), on two cores for about 50 s. With `echo`, log
probabilities are those of the prompt too (entrypoints/openai/completion/protocol.py).

`kv_transfer_params`: the address of the KV cache, which replicas tell each other. From a client it would make decode connect anywhere.
"""

import json

from rayline_gate import ApiKeyGate  # pyright: ignore[reportMissingImports]

_OF_REPLICAS = "kv_transfer_params"


class SidesGate(ApiKeyGate):
    """The gate, with the check of bodies behind it."""

    def __init__(self, app):
        super().__init__(_Bodies(app))


class _Bodies:
    """Reads the whole body of a POST before the application gets it."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self.app(scope, receive, send)
        messages, more = [], True
        while more:
            messages.append(await receive())
            more = messages[-1].get("more_body", False)
        if field := _refused(b"".join(message.get("body", b"") for message in messages)):
            return await _answer(send, f"{field} has no meaning where prefill and decode are divided. Fix: leave it out")

        async def again():
            return messages.pop(0) if messages else await receive()

        return await self.app(scope, again, send)


class _Found(Exception):
    pass


def _look(value):
    if value.get(_OF_REPLICAS) is not None:
        raise _Found
    return value


def _refused(body):
    """Returns the field that is refused; nothing where there is none, or where the body is no JSON."""
    try:
        request = json.loads(body, object_hook=_look) if body else None
    except _Found:
        return _OF_REPLICAS
    except (ValueError, RecursionError):
        return ""
    if not isinstance(request, dict):
        return ""
    if request.get("prompt_logprobs") is not None:
        return "prompt_logprobs"
    return "echo" if request.get("echo") else ""


async def _answer(send, message):
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": 400}
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})
