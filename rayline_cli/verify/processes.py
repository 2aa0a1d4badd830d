"""Checks of the processes of Serve and vLLM: throughput settings, the executor, and one environment everywhere."""

from __future__ import annotations

from typing import Any

from rayline.facts.labels import Role
from rayline.facts.serve_flags import RAY_EXECUTOR_V2, SERVE_FLAGS, THROUGHPUT_OPTIMIZED, THROUGHPUT_SETTINGS
from rayline_cli.verify.check import Outcome, Verdict, declared_off, verdict
from rayline_cli.verify.target import View

_SERVE = ("ray::ServeController", "ray::ServeReplica")
_RAY = (*_SERVE, "ray::HAProxyManager", "ray::ProxyActor")


def throughput(view: View) -> Verdict:
    """Check that the processes of Serve have the values of throughput mode, as Ray reads their environment."""
    answers = view.on_each(view.target.nodes, {"do": "settings", "names": list(THROUGHPUT_SETTINGS)})
    groups = [(node, group) for node, found in answers for group in found]
    wanted = _wanted_settings(view)
    wrong, kinds, count = [], set(), 0
    for node, group in groups:
        kinds |= {_kind(title) for title in group["titles"]}
        count += len(group["pids"])
        for name, value in group["values"].items():
            if name in wanted and _as_text(value) != wanted[name]:
                wrong.append(
                    f"{name}={_as_text(value)}, not {wanted[name]}, in {', '.join(sorted(set(group['titles'])))} on {node.name}"
                )
    missing = {"controller", "replica"} - kinds
    values = ", ".join(f"{name.removeprefix('RAY_SERVE_')}={value}" for name, value in wanted.items())
    versions = ", ".join(sorted({group["ray"] for _, group in groups}))
    seen = f"in {count} Serve processes (controller and replicas), as Ray {versions} reads their environment: {values}"
    if any(look["throughput_said"] for _, look in view.looks):
        seen += "; the controller's log says so too"
    problems = [*wrong, *(f"no process found: {kind}" for kind in sorted(missing))]
    if not view.expected.switches["throughput_optimized"]:
        return declared_off("throughput_optimized", not problems, "; ".join(problems) or seen)
    return verdict(
        not problems,
        "; ".join(problems) or seen,
        f'read when a process starts: set {THROUGHPUT_OPTIMIZED} to exactly "1" on the head and every worker, and start new ones',
    )


# Without the switch. What has the same value then tells nothing, and other versions of Ray may have another; direct ingress
# has no row, since HAProxy forces it.
_SETTINGS_OFF = {
    name: off
    for name, on in THROUGHPUT_SETTINGS.items()
    if (off := SERVE_FLAGS[name].default if name in SERVE_FLAGS else "0") != on
}


def _wanted_settings(view: View) -> dict[str, str]:
    """The values that must be seen: the switch's, but for those that the stack sets by themselves."""
    declared = view.expected.environment[Role.HEAD]
    by_switch = THROUGHPUT_SETTINGS if view.expected.switches["throughput_optimized"] else _SETTINGS_OFF
    values = {name: declared.get(name) or value for name, value in by_switch.items()}
    if view.expected.switches["ha_proxy"]:
        values["RAY_SERVE_ENABLE_DIRECT_INGRESS"] = "1"  # forced by HAProxy mode, whatever is set
    return values


def _as_text(value: Any) -> str:
    return str(int(value)) if isinstance(value, (bool, int)) else str(value)


def _kind(title: str) -> str:
    return "controller" if title.startswith("ray::ServeController") else "replica"


def executor(view: View) -> Verdict:
    """Check that the engines run on vLLM's executor for Ray, version 2."""
    replicas = view.replicas(*view.expected.llm_deployments)
    logs = {name: executor for _, look in view.looks for name, executor in look["executors"].items()}
    # a replica's log file has its id in the name
    said = {
        executor.rpartition(".")[2] for replica in replicas for name, executor in logs.items() if replica["replica_id"] in name
    }
    workers = {kind: sum(one["class_name"] == kind for one in view.actors) for kind in ("RayWorkerProc", "RayWorkerWrapper")}
    values = {
        process["environ"].get(RAY_EXECUTOR_V2, "not set")
        for _, look in view.looks
        for process in look["processes"]
        if process["title"].startswith("ray::ServeReplica")
        and any(name in process["title"] for name in view.expected.llm_deployments)
    }
    seen = f"{RAY_EXECUTOR_V2} is {', '.join(sorted(values)) or 'nowhere'} in {len(replicas)} replica(s)"
    seen += f", whose log names {', '.join(sorted(said))}" if said else ", whose log does not name the executor (yet)"
    fix = f'set {RAY_EXECUTOR_V2} to "1" on the head and every worker, and start new replicas'
    if not view.expected.switches["ray_executor_v2"]:
        return declared_off("ray_executor_v2", values == {"0"} and "RayExecutorV2" not in said, seen)
    if values != {"1"}:
        return Outcome.FAIL, seen, fix
    if not view.expected.on_gpu:
        return Outcome.NOT_APPLICABLE, f"{seen}: on the CPU Serve gives vLLM the mp executor, not Ray's", ""
    seen += f"; {workers['RayWorkerProc']} RayWorkerProc and {workers['RayWorkerWrapper']} RayWorkerWrapper (V1) actors"
    good = workers["RayWorkerProc"] > 0 and not workers["RayWorkerWrapper"] and said <= {"RayExecutorV2"}
    return verdict(good, seen, fix)


def parity(view: View) -> Verdict:
    """Check that every Ray process has the declared environment."""
    differing, digests, count = set(), {}, 0
    for node, look in view.looks:
        declared = view.expected.environment[Role.HEAD if node.is_head else Role.WORKER]
        for process in look["processes"]:
            title = process["title"]
            # the raylet has what its pod has, also where no actor of Serve runs
            if not (title.startswith(_RAY) or title.endswith("/raylet")):
                continue
            count += 1
            where = f"{title.split('/')[-1].split()[0]} on {node.name}"
            for name in view.expected.variables():
                value = process["environ"].get(name)
                if name in view.expected.secret_variables():
                    digests.setdefault(name, {}).setdefault(value, where)
                # a deployment's runtime_env may overlay variables; that is declared too, but not here
                elif value != declared.get(name):
                    wanted = "undeclared" if name not in declared else f"declared {declared[name]!r}"
                    differing.add(f"{name}={value!r} ({wanted}) in {where}")
    differing |= {
        f"{name} (a secret) differs between {' and '.join(found.values())}" for name, found in digests.items() if len(found) > 1
    }
    shown = sorted(differing)[:8]
    return verdict(
        not differing and count > 0,
        "; ".join([*shown, *([f"and {len(differing) - 8} more"] if len(differing) > 8 else [])])
        or f"{len(view.expected.variables())} variables are as declared in {count} Ray processes on {len(view.looks)} node(s)",
        "declare a variable once, for the head and every worker group, and start new processes",
    )
