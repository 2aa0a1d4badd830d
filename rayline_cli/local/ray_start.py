"""Hook of `ray start` on this machine, which Ray calls before it starts a process: RAY_START_HOOK names `before_start`.

Runs in Ray's own process and imports Ray alone. Both changes are for a busy machine and have no flag or variable in Ray 2.60.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

HOOK = f"{__name__}.before_start"


def before_start(ray_params: Any, head: bool) -> None:
    """Leave Ray Client's server out, and let the raylet start without waiting for the dashboard agent.

    Ray Client's server gives up when the raylet has not registered within 30 s (ray/_private/services.py,
    get_node_with_retry), and its end ends the session. `ray start` takes no port that means "none"
    (ray/_private/parameter.py, _check_usage).
    """
    from ray._private import services

    ray_params.ray_client_server_port = None
    services.start_raylet = _with_known_port(services.start_raylet)


def _with_known_port(start_raylet: Callable[..., Any]) -> Callable[..., Any]:
    """Return `start_raylet` preceded by writing the file from which the raylet reads the dashboard agent's port.

    The raylet ends itself when the agent has not written it 15 s after its start (src/ray/raylet/node_manager.cc,
    WaitForDashboardAgentPorts). The port is a flag of `ray start`, so the agent will write the same.
    """
    signature = inspect.signature(start_raylet)

    @functools.wraps(start_raylet)
    def start(*positional: Any, **named: Any) -> Any:
        from ray import _raylet

        raylet: Any = _raylet  # compiled, without types
        values = signature.bind(*positional, **named).arguments
        port = values["dashboard_agent_listen_port"]
        if port:
            raylet.persist_port(values["session_dir"], values["node_id"], raylet.DASHBOARD_AGENT_LISTEN_PORT_NAME, port)
        return start_raylet(*positional, **named)

    return start
