"""The gate of a service with LoRA adapters: it moves itself outside of Ray's loader of adapters.

Ray Serve LLM 2.60 puts its `_ResolveLoRAMiddleware` around vLLM's finished application (llm/_internal/serve/core/server/llm_server.py),
and so around the gate. A request without a key would have an adapter downloaded and loaded before the gate refuses it, and would learn
from 404 or 401 whether an adapter exists.

Serve starts the application's lifespan before the replica takes requests (serve/_private/replica.py, _run_asgi_lifespan_startup). The
gate sees that through Ray's middleware, makes itself the outermost one, and Starlette builds its stack again at the next request.
"""

import rayline_gate  # pyright: ignore[reportMissingImports]  # it lies beside this file


class AdapterGate(rayline_gate.ApiKeyGate):
    """The gate, outside of all other middleware once the application's lifespan has started."""

    def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            _move_outside(scope["app"])
        return super().__call__(scope, receive, send)


def _move_outside(app):
    """Put the gate first among the middlewares of a Starlette application: the first one is the outermost."""
    app.user_middleware.sort(key=lambda entry: entry.cls is not AdapterGate)
    app.middleware_stack = None
