"""Clients inside the cluster: a pod that asks the service without a pause and counts what came back.

A port-forward ends with the pod that it leads to, so it cannot watch an upgrade. The client is a copy of the service's own
worker container with another command: whatever image and volumes the service needs, the client has.
"""

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.kube.cluster import kubectl, kubectl_apply

# One line of JSON for each answer; the sum is made outside, so that a killed client loses nothing.
SCRIPT = """
import json, sys, time, urllib.error, urllib.request
url, model, keys = sys.argv[1:4]
body = json.dumps({"model": model, "max_tokens": 8, "messages": [{"role": "user", "content": "Count to three."}]}).encode()
while True:
    begun = time.time()
    try:
        key = open(keys).read().strip()
        request = urllib.request.Request(url + "/v1/chat/completions", body,
            {"Authorization": "Bearer " + key, "Content-Type": "application/json", "Connection": "close"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            said = str(answer.status) if json.load(answer)["choices"] else "empty"
    except urllib.error.HTTPError as error:
        said = str(error.code)
    except Exception as error:
        said = type(error).__name__ + ": " + str(error)
    print(json.dumps({"at": round(begun, 1), "took": round(time.time() - begun, 2), "said": said}), flush=True)
    time.sleep(0.2)
"""


@dataclass
class Seen:
    """What a client got: answers by status or error, and the longest time without a good one, seconds."""

    counts: Counter[str] = field(default_factory=Counter)
    longest_gap: float = 0.0

    @property
    def good(self) -> int:
        """Completions."""
        return self.counts["200"]

    @property
    def bad(self) -> dict[str, int]:
        """Everything else."""
        return {said: count for said, count in self.counts.items() if said != "200"}


def summed(log: str) -> Seen:
    """The sum of a client's log."""
    seen, last_good = Seen(), None
    for line in log.splitlines():
        if not line.startswith("{"):
            continue
        one = json.loads(line)
        seen.counts[one["said"]] += 1
        if one["said"] == "200":
            end = one["at"] + one["took"]
            if last_good is not None:
                seen.longest_gap = max(seen.longest_gap, end - last_good)
            last_good = end
    return seen


class Client:
    """A pod that asks from `start` until `stop`, in the service's own namespace."""

    def __init__(self, service: str, namespace: str, model: str, name: str = "client") -> None:
        self.name, self.namespace = name, namespace
        worker = json.loads(kubectl("-n", namespace, "get", "rayservice", service, "-o", "json"))["spec"][
            "rayClusterConfig"
        ]["workerGroupSpecs"][0]["template"]["spec"]
        container = worker["containers"][0]
        keys = "/keys/api_key"
        # the runtime's volumes; Secrets, ConfigMaps and caches are the service's own
        shared = [v for v in worker.get("volumes", []) if "persistentVolumeClaim" in v or "hostPath" in v]
        mounts = [m for m in container.get("volumeMounts", []) if m["name"] in {v["name"] for v in shared}]
        self.manifest: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 1,
                "automountServiceAccountToken": False,
                "securityContext": worker["securityContext"],
                "volumes": [*shared, {"name": "client-key", "secret": {"secretName": f"{service}-api-key"}}],
                "containers": [
                    {
                        "name": "client",
                        "image": container["image"],
                        "command": ["python", "-u", "-c", SCRIPT, f"http://{service}-serve-svc:8000", model, keys],
                        "securityContext": container["securityContext"],
                        "resources": {
                            "requests": {"cpu": "20m", "memory": "100Mi"},
                            "limits": {"cpu": "200m", "memory": "200Mi"},
                        },
                        "volumeMounts": [*mounts, {"name": "client-key", "mountPath": "/keys", "readOnly": True}],
                    }
                ],
            },
        }

    def start(self, seconds: float = 120) -> "Client":
        """Make the pod and wait for its first completion."""
        kubectl_apply(self.manifest)
        end = time.monotonic() + seconds
        while self.seen().good == 0:
            assert time.monotonic() < end, f"no completion in {seconds} s: {self.seen().bad}"
            time.sleep(1)
        return self

    def seen(self) -> Seen:
        """What came back until now."""
        try:
            return summed(kubectl("-n", self.namespace, "logs", self.name))
        except RuntimeError:
            return Seen()  # the container does not run yet

    def stop(self) -> Seen:
        """Remove the pod; what came back."""
        seen = self.seen()
        kubectl("-n", self.namespace, "delete", "pod", self.name, "--wait=true", "--ignore-not-found")
        return seen
