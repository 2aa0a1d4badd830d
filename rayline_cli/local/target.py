"""The local session as something that rayline_cli.verify can look into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rayline.facts.labels import Role
from rayline.facts.serve_flags import SWITCHES
from rayline.service.api_key import KEYS_VARIABLE
from rayline.service.reading import SecretRef
from rayline_cli.clients.serve import APPLICATIONS
from rayline_cli.local import waiting
from rayline_cli.local.differences import LISTENS_ON_ALL_INTERFACES
from rayline_cli.local.ports import LOOPBACK
from rayline_cli.local.session import Session
from rayline_cli.local.single_node import SingleNode
from rayline_cli.local.translate import Translation
from rayline_cli.verify import Expected, Node, View, inside
from rayline_cli.verify.check import Verdict, verdict
from rayline_cli.verify.expected import KNOWN, is_on

SETTLES_SECONDS = 10.0
"""HAProxy takes a new server for up after two checks, 250 ms apart, and a reload comes before them."""


class LocalTarget:
    """Implements rayline_cli.verify.Target for one session on this machine. `expected` may be changed before it is checked."""

    endpoint = "serve"

    def __init__(self, session: Session, node: SingleNode, translation: Translation) -> None:
        self._session = session
        self._translation = translation
        self._patience = waiting.slowdown()
        self.settles_seconds = SETTLES_SECONDS * self._patience
        # After the translation: a port that had to move is no difference to complain about.
        env: dict[str, str | None] = {
            name: value for name, value in translation.env.items() if name in node.env or name in KNOWN
        }
        # an empty Secret is no variable here
        env |= {name: None for name, value in node.env.items() if isinstance(value, SecretRef)}
        self.expected = Expected(
            service=node.name,
            environment={Role.HEAD: env, Role.WORKER: env},
            switches={switch: is_on(env, variable) for switch, variable in SWITCHES.items()},
            serve_config=translation.serve_config,
            on_gpu=False,
            api_key=KEYS_VARIABLE in env,
        )

    @property
    def nodes(self) -> Sequence[Node]:
        """Return this machine's one node."""
        return [Node("this machine", is_head=True, run=self.run_client)]

    def run_client(self, job: Mapping[str, Any]) -> Any:
        """Do a job of inside.py on the session's processes."""
        ports = self._session.ports
        return inside.run(
            job,
            {
                "pids": [process.pid for process in self._session.processes()],
                "logs": str(self._session.log_folder),
                "dashboard": f"http://{LOOPBACK}:{ports['dashboard']}",
                "serve": f"http://{LOOPBACK}:{ports['serve']}",
                "token": self._translation.auth_token,
                "key": self._translation.api_key or "",
                "patience": self._patience,
            },
        )

    def reachability(self, view: View) -> Verdict:
        """Everything listens on loopback, but for what Ray cannot be told to keep there."""
        ((_, look),) = view.looks
        exempt = tuple(LISTENS_ON_ALL_INTERFACES)
        outside = [one for one in look["listeners"] if not one["address"].removeprefix("::ffff:").startswith(("127.", "::1"))]
        wrong = [
            f"{one['title'].split()[0]} at {one['address']}:{one['port']}"
            for one in outside
            if not one["title"].startswith(exempt)
        ]
        dashboard = self.nodes[0].dashboard(APPLICATIONS, auth=False)
        if dashboard["status"] != 401:
            wrong.append(f"the dashboard answers HTTP {dashboard['status']} without Ray's token")
        known = f"; {len(outside)} gRPC listener(s) of replicas, which ask for Ray's token" if outside else ""
        return verdict(
            not wrong and bool(look["listeners"]),
            "; ".join(wrong)
            or f"{len(look['listeners']) - len(outside)} listeners on loopback{known}; the dashboard refuses who has no token",
            "bring the session down and up again; if it stays, please report it",
        )
