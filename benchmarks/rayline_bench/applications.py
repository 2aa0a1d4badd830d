"""The arms of the workloads without a language model: the same ways to run Ray Serve, with another application in them.

An arm of Ray is a RayService. Here its applications are replaced and everything else of it stays: environment, Ray's start
parameters, http_options, logging. So `kit` with the echo in it is what the kit's profile does to an ordinary application.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayline.service.reading import RayService

LABORATORY = Path(__file__).parents[1]


@dataclass(frozen=True)
class Application:
    """A Ray Serve application to be measured."""

    name: str
    what: str
    import_path: str
    args: Mapping[str, Any]
    ingress: str
    """The deployment that HTTP requests reach."""
    behind: str
    """The one that it calls."""
    probe: str
    """A GET that says HTTP 200 once the whole chain answers."""


APPLICATIONS: dict[str, Application] = {
    application.name: application
    for application in (
        Application(
            "echo",
            "10 KB to an ingress, from there to a second deployment, and back",
            "rayline_bench.apps:echo",
            {},
            "EchoIngress",
            "Echo",
            "/echo?message=hello",
        ),
        Application(
            "recommender",
            "a small DLRM: an ingress makes up 32 candidates of a user, a second deployment scores them",
            "rayline_bench.apps:recommender",
            # published: 100,000 rows a table, 0.7 GB in all
            {"cardinality": 10_000},
            "RecommenderIngress",
            "Ranker",
            "/recommend?user_id=1",
        ),
    )
}


def with_application(manifest: Mapping[str, Any], application: Application, replicas: int = 1) -> dict[str, Any]:
    """A copy of a RayService that runs `application` and nothing else, `replicas` of each of its two deployments.

    The folder of this package is put on the path of Ray's processes, where they find rayline_bench.apps. No deployment asks Ray for a CPU, as
    the kit's engines do not: CPUs are Ray's bookkeeping, and every arm gets the same cores.
    """

    def only_this(config: dict[str, Any]) -> None:
        config["applications"] = [
            {
                "name": application.name,
                "route_prefix": "/",
                "import_path": application.import_path,
                "args": dict(application.args),
                "deployments": [
                    {"name": name, "num_replicas": replicas, "ray_actor_options": {"num_cpus": 0}}
                    for name in (application.ingress, application.behind)
                ],
            }
        ]

    changed = RayService(manifest).with_serve(only_this).with_environment({"PYTHONPATH": str(LABORATORY)})
    return dict(changed.manifest)
