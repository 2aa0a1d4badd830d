"""The local session as a target of rayline_cli.verify."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rayline.facts.labels import Role
from rayline.service.api_key import KEYS_VARIABLE
from rayline.service.reading import SecretRef
from rayline_cli.clients.serve import APPLICATIONS
from rayline_cli.local import waiting
from rayline_cli.local.differences import LISTENS_ON_ALL_INTERFACES
from rayline_cli.local.ports import address
from rayline_cli.local.session import Session
from rayline_cli.local.single_node import SingleNode
from rayline_cli.local.translate import Translation
from rayline_cli.verify import Expected, Node, Target, View, inside
from rayline_cli.verify.check import Verdict, verdict
from rayline_cli.verify.expected import KNOWN, expected_switches

SETTLES_SECONDS = 10.0
"""HAProxy takes a new server for up after two checks, 250 ms apart, and a reload comes before them."""


class LocalTarget(Target):
    """One session on this machine. `expected` may be changed before it is checked."""

    endpoint = "serve"

    def __init__(self, session: Session, node: SingleNode, translation: Translation) -> None:
        self._session = session
        self._translation = translation
        self._patience = waiting.slowdown()
        self.settles_seconds = SETTLES_SECONDS * self._patience
        self.nodes = [Node("this machine", is_head=True, run=self.run_client)]
        # After the translation: a port that had to move is no difference to complain about.
        env: dict[str, str | None] = {
            name: value for name, value in translation.env.items() if name in node.env or name in KNOWN
        }
        # an empty Secret is no variable here
        env |= {name: None for name, value in node.env.items() if isinstance(value, SecretRef)}
        self.expected = Expected(
            service=node.name,
            environment={Role.HEAD: env, Role.WORKER: env},
            switches=expected_switches(env),
            serve_config=translation.serve_config,
            on_gpu=False,
            tasks=node.tasks,
            api_key=KEYS_VARIABLE in env,
        )

    def run_client(self, job: Mapping[str, Any]) -> Any:
        """Run a job of inside.py on the session's processes."""
        ports, application = self._session.ports, job.get("application")
        place = {
            "pids": [process.pid for process in self._session.processes()],
            "logs": str(self._session.log_folder),
            "dashboard": address(ports["dashboard"]),
            "serve": address(ports["serve"]),
            "metrics": address(ports["metrics"]),
            "token": self._translation.auth_token,
            "key": self._translation.api_keys.get(application or next(iter(self._translation.api_keys), ""), ""),
            "patience": self._patience,
        }
        return inside.run(job, place)

    def reachability(self, view: View) -> Verdict:
        """Check that everything listens on loopback, except where Ray has no setting for it."""
        ((_, look),) = view.looks
        exposed = [
            listener
            for listener in look["listeners"]
            if not listener["address"].removeprefix("::ffff:").startswith(("127.", "::1"))
        ]
        problems = [
            f"{listener['title'].split()[0]} at {listener['address']}:{listener['port']}"
            for listener in exposed
            if not listener["title"].startswith(tuple(LISTENS_ON_ALL_INTERFACES))
        ]
        dashboard = self.nodes[0].dashboard(APPLICATIONS, auth=False)
        if dashboard["status"] != 401:
            problems.append(f"the dashboard answers HTTP {dashboard['status']} without Ray's token")
        seen = f"{len(look['listeners']) - len(exposed)} listeners on loopback"
        seen += f"; {len(exposed)} gRPC listener(s) of replicas, which require Ray's token" if exposed else ""
        return verdict(
            not problems and bool(look["listeners"]),
            "; ".join(problems) or f"{seen}; the dashboard refuses requests without a token",
            "bring the session down and up again; if it stays, please report it",
        )
