"""The gate of rayline_gate in front of Ray's own proxy, which holds requests while a service has no replica.

The gate of a service stands in its replicas. Without a replica nothing would check a key, and a request without one would load the
model. Ray calls `middlewares` in each of its processes with an HTTP server (RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH). Only the
proxy gets the gate: a replica has its own, and HAProxy sends the router of direct streaming no key.
"""

from rayline_gate import ApiKeyGate  # pyright: ignore[reportMissingImports]

_ANSWERED_BY_THE_PROXY = ("/-/healthz", "/-/routes")
"""Paths that reach no replica: HAProxy's health check of the proxy brings no key."""


class ProxyGate(ApiKeyGate):
    """The gate, open for what the proxy answers itself."""

    # a coroutine function: uvicorn takes any other outermost application for one of ASGI 2
    async def __call__(self, scope, receive, send):
        passes = scope.get("path") in _ANSWERED_BY_THE_PROXY
        await (self.app(scope, receive, send) if passes else super().__call__(scope, receive, send))


def middlewares():
    """Return the middlewares of this process."""
    import ray
    from ray.serve._private.constants import SERVE_PROXY_NAME
    from starlette.middleware import Middleware

    return [Middleware(ProxyGate)] if SERVE_PROXY_NAME in (ray.get_runtime_context().get_actor_name() or "") else []
