"""What happens in `ray start` on this machine before it starts a process. Ray calls `before_start`: RAY_START_HOOK names it.

Runs in Ray's own process and imports Ray alone. Both changes are for a busy machine and have no flag or variable in Ray 2.60.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

HOOK = f"{__name__}.before_start"


def before_start(ray_params: Any, head: bool) -> None:
    """Leaves Ray Client's server out, and lets the raylet start without waiting for the dashboard agent.

    Ray Client's server gives up when the raylet has not registered within 30 s (ray/_private/services.py,
    get_node_with_retry), and its end ends the session. `ray start` takes no port that means "none"
    (ray/_private/parameter.py, _check_usage).
    """
    from ray._private import services

    ray_params.ray_client_server_port = None
    services.start_raylet = _with_known_port(services.start_raylet)


def _with_known_port(start_raylet: Callable[..., Any]) -> Callable[..., Any]:
    """`start_raylet`, which first writes the file that the raylet reads the dashboard agent's port from.

    The raylet ends itself when the agent has not written it 15 s after its start (src/ray/raylet/node_manager.cc,
    WaitForDashboardAgentPorts). The port is a flag of `ray start`, so what is written is what the agent will write.
    """
    signature = inspect.signature(start_raylet)

    @functools.wraps(start_raylet)
    def start(*positional: Any, **named: Any) -> Any:
        from ray import _raylet

        raylet: Any = _raylet  # compiled, without types
        given = signature.bind(*positional, **named).arguments
        if given["dashboard_agent_listen_port"]:
            raylet.persist_port(
                given["session_dir"],
                given["node_id"],
                raylet.DASHBOARD_AGENT_LISTEN_PORT_NAME,
                given["dashboard_agent_listen_port"],
            )
        return start_raylet(*positional, **named)

    return start
