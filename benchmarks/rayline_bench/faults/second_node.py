"""A worker node beside the head on one machine, so that one of the two can be lost.

Two HAProxy cannot share a port; Serve has a variable for exactly this, which only worker nodes read. Both nodes have the
address 127.0.0.1, so each HAProxy takes both nodes' routers for its own, which in a cluster it does not. And a node that
is killed here refuses connections at once, as a pod that was killed does; a machine without power does not answer at all,
and HAProxy waits RAY_SERVE_HAPROXY_TIMEOUT_CONNECT_S (5 s) for it before it goes to another replica.

Each node is a scheduling group of its own (sched_autogroup). The engine of the one that lives keeps the killed processes
of the other from the CPU, so that their sockets stay open: measured on two cores, up to ten seconds. So the survivor has to
stand behind: `stand_last`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from rayline_cli.local.deploying import address
from rayline_cli.local.session import Session, environ, is_alive
from rayline_cli.local.supervisor import stand_behind_other_sessions

_RUN_NODE = Path(__file__).with_name("_run_node.py")
PORT_STEP = 37
"""From the head's port to the worker's of the same kind; tried again in such steps where one is taken."""
MARK = "RAYLINE_WORKER_NODE"
"""Set in every process of the node."""
SURVIVOR_NICE = 19
"""Of the surviving node's group; 19 is the last place."""


def stand_last(survivor: psutil.Process | None) -> None:
    """Put a node last. To be called before the other one is killed; `survivor` is the first process of the one that lives."""
    if survivor is not None:
        stand_behind_other_sessions(survivor.pid, SURVIVOR_NICE)


@dataclass(frozen=True)
class WorkerNode:
    """A second Ray node of a session."""

    root: psutil.Process
    folder: Path
    """Ray's session folder of this node."""
    url: str
    """Of its HAProxy, once Serve has started one: when a replica runs here."""

    def runs(self) -> bool:
        """Return whether its raylet lives: the node's first process ends with it, as `ray start --block` does."""
        return is_alive(self.root)

    def processes(self) -> list[psutil.Process]:
        """Return every living process of the node: its first one's descendants, and orphans by their mark.

        The agents of a raylet write their title over the mark.
        """
        node = {process.pid: process for process in psutil.process_iter() if environ(process.pid).get(MARK) == self.folder.name}
        with suppress(psutil.NoSuchProcess):
            node.update({child.pid: child for child in self.root.children(recursive=True)})
        return [process for process in node.values() if is_alive(process)]

    def kill(self) -> None:
        """Send SIGKILL to every process at once, as for a pod that is killed."""
        while left := self.processes():
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=2)


@contextmanager
def joined(session: Session, num_cpus: int = 1) -> Iterator[WorkerNode]:
    """Yield a node that joins `session`'s; nothing of it stays behind. Its environment is the head's, with ports of its own."""
    root = session.supervisor()
    if root is None:
        raise RuntimeError("the session's Ray does not run")
    folder = Path(tempfile.mkdtemp(prefix="rayline-node-", dir="/tmp"))
    taken = {connection.laddr.port for connection in psutil.net_connections("tcp") if connection.laddr}
    ports = {}
    for name in ("serve", "haproxy-metrics", "haproxy-stats", "metrics"):
        ports[name] = next(port for port in range(session.ports[name] + PORT_STEP, 65536, PORT_STEP) if port not in taken)
        taken.add(ports[name])
    env = {
        **environ(root.pid),
        "RAY_SERVE_WORKER_PROXY_HTTP_PORT": str(ports["serve"]),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports["haproxy-metrics"]),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports["haproxy-stats"]),
        MARK: folder.name,
    }
    command = [sys.executable, "-P", str(_RUN_NODE), f"127.0.0.1:{session.ports['gcs']}", str(folder), str(num_cpus)]
    with open(folder / "output", "wb") as output:
        streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
        process = subprocess.Popen([*command, str(ports["metrics"])], env=env, start_new_session=True, **streams)
    node = WorkerNode(psutil.Process(process.pid), folder, address(ports["serve"]))
    try:
        yield node
    finally:
        node.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)
