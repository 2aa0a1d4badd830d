"""Checks of the processes of Serve and vLLM: throughput settings, the executor, and one environment everywhere."""

from __future__ import annotations

from typing import Any

from rayline.facts.labels import Role
from rayline.facts.serve_flags import RAY_EXECUTOR_V2, SERVE_FLAGS, THROUGHPUT_OPTIMIZED, THROUGHPUT_SETTINGS
from rayline_cli.verify.check import Verdict, declared_off, not_applicable, verdict
from rayline_cli.verify.target import View

_CONTROLLER, _REPLICA = "ray::ServeController", "ray::ServeReplica"
_RAY = (_CONTROLLER, _REPLICA, "ray::HAProxyManager", "ray::ProxyActor")


def throughput(view: View) -> Verdict:
    """Check that the processes of Serve have the values of throughput mode, as Ray reads their environment."""
    answers = view.on_each(view.target.nodes, {"do": "settings", "names": list(THROUGHPUT_SETTINGS)})
    groups = [(node, group) for node, found in answers for group in found]
    wanted = _wanted_settings(view)
    problems = [
        f"{name}={_as_text(value)}, not {wanted[name]}, in {', '.join(sorted(set(group['titles'])))} on {node.name}"
        for node, group in groups
        for name, value in group["values"].items()
        if name in wanted and _as_text(value) != wanted[name]
    ]
    titles = [title for _, group in groups for title in group["titles"]]
    for kind, prefix in (("controller", _CONTROLLER), ("replica", _REPLICA)):
        if not any(title.startswith(prefix) for title in titles):
            problems.append(f"no process found: {kind}")
    count = sum(len(group["pids"]) for _, group in groups)
    values = ", ".join(f"{name.removeprefix('RAY_SERVE_')}={value}" for name, value in wanted.items())
    versions = ", ".join(sorted({group["ray"] for _, group in groups}))
    seen = f"in {count} Serve processes (controller and replicas), as Ray {versions} reads their environment: {values}"
    if any(look["throughput_said"] for _, look in view.looks):
        seen += "; the controller's log says so too"
    evidence = "; ".join(problems) or seen
    if not view.expected.switches["throughput_optimized"]:
        return declared_off("throughput_optimized", not problems, evidence)
    fix = f'set {THROUGHPUT_OPTIMIZED} to exactly "1" on the head and every worker, and start new processes, which read it'
    return verdict(not problems, evidence, fix)


# Values without the switch. A value that is the same with it proves nothing, and other versions of Ray may have another.
# Direct ingress has no row, since HAProxy forces it.
_SETTINGS_OFF = {
    name: off
    for name, on in THROUGHPUT_SETTINGS.items()
    if (off := SERVE_FLAGS[name].default if name in SERVE_FLAGS else "0") != on
}


def _wanted_settings(view: View) -> dict[str, str]:
    """Return the values that must be seen: the switch's, except where the stack sets a variable itself."""
    declared = view.expected.environment[Role.HEAD]
    by_switch = THROUGHPUT_SETTINGS if view.expected.switches["throughput_optimized"] else _SETTINGS_OFF
    values = {name: declared.get(name) or value for name, value in by_switch.items()}
    if view.expected.switches["ha_proxy"]:
        values["RAY_SERVE_ENABLE_DIRECT_INGRESS"] = "1"  # forced by HAProxy mode, whatever is set
    return values


def _as_text(value: Any) -> str:
    return str(int(value)) if isinstance(value, (bool, int)) else str(value)


def executor(view: View) -> Verdict:
    """Check that the engines run on vLLM's executor for Ray, version 2."""
    models = view.expected.llm_deployments
    replicas = view.replicas(*models)
    # a replica's log file has its id in the name
    said = {
        executor.rpartition(".")[2]
        for _, look in view.looks
        for name, executor in look["executors"].items()
        if any(replica["replica_id"] in name for replica in replicas)
    }
    values = {
        process["environ"].get(RAY_EXECUTOR_V2, "not set")
        for _, look in view.looks
        for process in look["processes"]
        if process["title"].startswith(_REPLICA) and any(name in process["title"] for name in models)
    }
    seen = f"{RAY_EXECUTOR_V2} is {', '.join(sorted(values)) or 'nowhere'} in {len(replicas)} replica(s)"
    seen += f", whose log names {', '.join(sorted(said))}" if said else ", whose log does not name the executor (yet)"
    fix = f'set {RAY_EXECUTOR_V2} to "1" on the head and every worker, and start new replicas'
    if not view.expected.switches["ray_executor_v2"]:
        return declared_off("ray_executor_v2", values == {"0"} and "RayExecutorV2" not in said, seen)
    if values != {"1"}:
        return verdict(False, seen, fix)
    if not view.expected.on_gpu:
        return not_applicable(f"{seen}: on the CPU Serve gives vLLM the mp executor, not Ray's")
    v2, v1 = (sum(actor["class_name"] == kind for actor in view.actors) for kind in ("RayWorkerProc", "RayWorkerWrapper"))
    seen += f"; {v2} RayWorkerProc and {v1} RayWorkerWrapper (V1) actors"
    return verdict(v2 > 0 and not v1 and said <= {"RayExecutorV2"}, seen, fix)


def parity(view: View) -> Verdict:
    """Check that every Ray process has the declared environment."""
    differing, digests, count = set(), {}, 0
    variables, secrets = view.expected.variables(), view.expected.secret_variables()
    overlays = view.expected.overlays
    for node, look in view.looks:
        declared = view.expected.environment[Role.HEAD if node.is_head else Role.WORKER]
        for process in look["processes"]:
            title = process["title"]
            # the raylet has its pod's environment, also where no actor of Serve runs
            if not (title.startswith(_RAY) or title.endswith("/raylet")):
                continue
            count += 1
            where = f"{title.split('/')[-1].split()[0]} on {node.name}"
            for name in variables:
                value = process["environ"].get(name)
                if name in secrets:
                    digests.setdefault(name, {}).setdefault(value, where)
                elif value != declared.get(name) and value not in overlays.get(name, ()):
                    wanted = "undeclared" if name not in declared else f"declared {declared[name]!r}"
                    differing.add(f"{name}={value!r} ({wanted}) in {where}")
    differing |= {
        f"{name} (a secret) differs between {' and '.join(places.values())}"
        for name, places in digests.items()
        if len(places) > 1
    }
    shown = sorted(differing)[:8] + ([f"and {len(differing) - 8} more"] if len(differing) > 8 else [])
    ok = f"{len(variables)} variables are as declared in {count} Ray processes on {len(view.looks)} node(s)"
    fix = "declare a variable once, for the head and every worker group, and start new processes"
    return verdict(not differing and count > 0, "; ".join(shown) or ok, fix)
