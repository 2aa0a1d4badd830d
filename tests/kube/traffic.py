"""Clients inside the cluster: a pod that asks the service without a pause, so that a test can count what came back.

A port-forward ends with the pod that it leads to, so it cannot watch an upgrade. The client lives in a namespace of its own,
which the stack has to allow, and needs bash and wget of the service's image, as KubeRay's probes do.
"""

import json
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.kube.cluster import kubectl, kubectl_apply, pod

# One line of JSON for each answer; the sum is made outside, so that a killed client loses nothing. A status of 200 counts
# only with a whole body, which wget's exit code says.
SCRIPT = """
while true; do
  begun=$(date +%s.%N)
  said=$(wget -S -T 60 -t 1 -O /dev/null --header "Authorization: Bearer $KEY" --header "Content-Type: application/json" \
    --post-data "$BODY" "$URL" 2>&1); code=$?
  status=$(sed -n 's|.*HTTP/1.[01] \\([0-9]*\\).*|\\1|p' <<< "$said" | tail -n 1)
  if [ $code != 0 ] && { [ -z "$status" ] || [ "$status" = 200 ]; }; then status="wget $code"; fi
  echo "{\\"at\\": $begun, \\"until\\": $(date +%s.%N), \\"said\\": \\"$status\\"}"
  sleep 1
done
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
            if last_good is not None:
                seen.longest_gap = max(seen.longest_gap, one["until"] - last_good)
            last_good = one["until"]
    return seen


class Client:
    """A pod that asks from `start` until `stop`. The namespace is the client's: it is made and removed with it."""

    def __init__(self, namespace: str, image: str, url: str, model: str, key: str) -> None:
        self.namespace = namespace
        question = {"model": model, "max_tokens": 8, "messages": [{"role": "user", "content": "Count to three."}]}
        self.secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "client", "namespace": namespace},
            "stringData": {"KEY": key, "BODY": json.dumps(question), "URL": f"{url}/v1/chat/completions"},
        }
        self.pod = pod(image, "client", namespace, command=["bash", "-c", SCRIPT], restartPolicy="Never")
        self.pod["spec"]["containers"][0]["envFrom"] = [{"secretRef": {"name": "client"}}]

    def start(self, seconds: float = 120) -> "Client":
        """Make the pod and wait for its first completion."""
        kubectl_apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})
        kubectl_apply(self.secret)
        kubectl_apply(self.pod)
        end = time.monotonic() + seconds
        while self.seen().good == 0:
            assert time.monotonic() < end, f"no completion in {seconds:.0f} s: {self.seen().bad}"
            time.sleep(1)
        return self

    def seen(self) -> Seen:
        """What came back until now."""
        try:
            return summed(kubectl("-n", self.namespace, "logs", "client"))
        except RuntimeError:
            return Seen()  # the container does not run yet

    def stop(self) -> Seen:
        """Remove the client; what came back."""
        seen = self.seen()
        kubectl("delete", "namespace", self.namespace, "--ignore-not-found")
        return seen
