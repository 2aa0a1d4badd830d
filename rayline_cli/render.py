"""Render manifests for a review and for `kubectl apply`. The program never reads them."""

import copy
import pathlib
from typing import Any

import yaml

from rayline.facts.choices import ClusterMode, OperatorSource

from .offline import Declared, Program
from .stack_names import PROJECT_ROOT

MANIFESTS = PROJECT_ROOT / "manifests"
# Secrets are values, which are never rendered; charts and files of CRDs are other projects' text.
_NOT_APPLIED = ("Secret", "Release", "ConfigGroup", "RayService")
# Keys that come first; the engine's wire format keeps no order, so the rest is alphabetical.
_FIRST = ("apiVersion", "kind", "metadata", "name", "namespace", "groupName", "value", "image")


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    """Represent a text of several lines as a block, which a diff shows line by line."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def ray_services(program: Program) -> list[dict[str, Any]]:
    """Return the RayServices that the program declares, without annotations for Pulumi."""
    return [_manifest(resource) for resource in program.of_type(":RayService")]


def network_policies(program: Program) -> list[dict[str, Any]]:
    """Return the NetworkPolicies that the program declares."""
    return [_manifest(resource) for resource in program.of_type(":NetworkPolicy")]


def secrets(program: Program) -> dict[str, list[str]]:
    """Return the names of the Secrets that the program declares, with their keys; never the values."""
    declared = program.of_type("core/v1:Secret")
    return {secret.inputs["metadata"]["name"]: sorted(secret.inputs["stringData"]) for secret in declared}


def files(program: Program) -> dict[str, str]:
    """Return the text of each manifest of a stack by its file name."""
    head = f"# Rendered by `make render` from stacks/Pulumi.{program.stack}.yaml: change that, not this.\n"
    if program.plan.cluster.mode is ClusterMode.LOCAL:
        head += "# In this mode `rayline up` plays Kubernetes and KubeRay; the RayService is what it runs.\n"
    result = {}
    for resource in program.resources:
        kind = resource.type.rpartition(":")[2]
        if resource.type.startswith("kubernetes:") and kind not in _NOT_APPLIED:
            name = resource.inputs["metadata"]["name"].replace(":", "-")
            result[f"{kind.lower()}-{name}.yaml"] = head + dump(_manifest(resource))
    needed = "".join(f"#   {name}: {', '.join(keys)}\n" for name, keys in secrets(program).items())
    needs = f"# Needs these Secrets, whose values Pulumi keeps encrypted in its state:\n{needed}" if needed else ""
    for service in ray_services(program):
        result[f"rayservice-{service['metadata']['name']}.yaml"] = head + needs + dump(service)
    if program.plan.kuberay.source is OperatorSource.HELM:
        for release in program.of_type("helm.sh/v3:Release"):
            chart = f"# helm upgrade --install kuberay-operator {program.plan.kuberay.chart} --version {program.plan.kuberay.version} --repo {program.plan.kuberay.repository} --skip-crds -f this-file\n"
            result["kuberay-operator.values.yaml"] = head + chart + dump(_whole_numbers(release.inputs["values"]))
    return result


def write(program: Program, root: pathlib.Path = MANIFESTS) -> list[str]:
    """Write a stack's manifests and remove those that it no longer has. Return the names of the files that changed."""
    folder, wanted, changed = root / program.stack, files(program), stale(program, root)
    folder.mkdir(parents=True, exist_ok=True)
    for name in changed:
        if name in wanted:
            (folder / name).write_text(wanted[name])
        else:
            (folder / name).unlink()
    return changed


def stale(program: Program, root: pathlib.Path = MANIFESTS) -> list[str]:
    """Return the names of a stack's files that differ from what the program declares."""
    folder, wanted = root / program.stack, files(program)
    present = {path.name: path.read_text() for path in folder.iterdir()} if folder.exists() else {}
    return sorted(name for name in present.keys() | wanted.keys() if present.get(name) != wanted.get(name))


def _manifest(resource: Declared) -> dict[str, Any]:
    manifest = copy.deepcopy(dict(resource.inputs))
    annotations = manifest["metadata"].get("annotations", {})
    for key in [key for key in annotations if key.startswith("pulumi.com/")]:
        del annotations[key]
    return _whole_numbers(manifest)


def _whole_numbers(value: Any) -> Any:
    """Return a value with whole numbers as integers: the engine's wire format has floats only."""
    if isinstance(value, dict):
        first = [key for key in _FIRST if key in value]
        return {key: _whole_numbers(value[key]) for key in [*first, *sorted(value.keys() - set(first))]}
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def dump(manifest: dict[str, Any]) -> str:
    """Return one object as YAML, with texts of several lines as blocks."""
    return yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=120)
