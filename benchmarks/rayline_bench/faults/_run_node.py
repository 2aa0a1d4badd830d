"""One more Ray node, run as a script until it is ended: python -P _run_node.py GCS_ADDRESS TEMP_FOLDER NUM_CPUS METRICS_PORT

`ray start --address` cannot be used: with RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0, which keeps a session on loopback, it
refuses a second node, and with 1 it replaces 127.0.0.1 by the machine's address, where the head does not listen.
This is what ray.cluster_utils.Cluster.add_node does, and what `ray start --block` does when a process of the node ends.
"""

from __future__ import annotations

import signal
import sys
import time
from typing import Any

from ray._private.node import Node
from ray._private.parameter import RayParams

from rayline_cli.local.supervisor import stand_behind_other_sessions


def main(gcs_address: str, temp_folder: str, num_cpus: int, metrics_port: int) -> int:
    """Run a node until one of its processes dies."""
    stand_behind_other_sessions()
    # Any: Ray's parameters carry no types
    options: dict[str, Any] = {
        "gcs_address": gcs_address,
        "node_ip_address": "127.0.0.1",
        "num_cpus": num_cpus,
        "num_gpus": 0,
        "object_store_memory": 150 * 2**20,
        "min_worker_port": 0,
        "max_worker_port": 0,
        "node_manager_port": 0,
        "metrics_export_port": metrics_port,
        "temp_dir": temp_folder,
        "include_log_monitor": False,
    }
    params = RayParams(**options)
    params.dashboard_agent_listen_port = None  # any free one; the default is the head's
    node = Node(params, head=False, shutdown_at_exit=True, spawn_reaper=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while not node.dead_processes():
        time.sleep(0.2)
    node.kill_all_processes(check_alive=False, allow_graceful=False)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
