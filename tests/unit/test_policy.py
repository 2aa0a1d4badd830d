"""The policy pack's rules: the kit's own stacks pass them, and each rule stops what it is there for."""

import copy
import pathlib
import re
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from policy.rules import RULES, Resource, TeamSettings, pinned, violations
from rayline_cli import cli, policy_config
from rayline_cli.offline import Program
from tests.conftest import recorded, stacks_of

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOYED = stacks_of("create", "existing")
NAMES = [rule.name for rule in RULES]


def seen(program: Program) -> list[Resource]:
    """What a policy engine would be shown of a recorded program."""
    return [Resource(r.type, r.name, copy.deepcopy(r.inputs), r.protect) for r in program.resources]


def inputs(resource: Resource) -> Any:
    """The inputs, to be changed: they are this test's own copy."""
    return resource.inputs


def of_kind(resources: list[Resource], kind: str) -> Resource:
    return next(resource for resource in resources if resource.kind == kind)


def gpu_pool(resources: list[Resource]) -> Resource:
    return next(r for r in resources if r.kind == "NodePool" and r.at("nodeConfig.guestAccelerators"))


def cpu_pool(resources: list[Resource]) -> Resource:
    return next(r for r in resources if r.kind == "NodePool" and not r.at("nodeConfig.guestAccelerators"))


def head(resources: list[Resource]) -> Any:
    return of_kind(resources, "RayService").inputs["spec"]["rayClusterConfig"]["headGroupSpec"]


def worker(resources: list[Resource]) -> Any:
    return of_kind(resources, "RayService").inputs["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]


def environment(pod: Any) -> list[dict[str, Any]]:
    return pod["containers"][0]["env"]


def switch(pod: Any, name: str) -> dict[str, Any]:
    return next(one for one in environment(pod) if one["name"] == name)


def without(resources: list[Resource], kind: str) -> list[Resource]:
    return [resource for resource in resources if resource.kind != kind]


def unprotected(resources: list[Resource], which: Resource) -> list[Resource]:
    return [Resource(r.type, r.name, r.inputs, False) if r is which else r for r in resources]


@pytest.mark.parametrize("stack", DEPLOYED)
def test_the_kits_own_stacks_break_no_rule(stack):
    found = violations(seen(recorded(stack)), TeamSettings(stack))
    assert [(rule, resource.name, message) for rule, resource, message in found] == []


def test_every_rule_has_a_name_of_its_own_and_says_what_it_wants():
    assert len(set(NAMES)) == len(NAMES) >= 14
    for rule in RULES:
        assert rule.description[0].isupper()
        assert not rule.description.endswith(".")


# What a person might do to a production stack, and the rule that has to stop it. Each gets the resources of prod-l4 and
# changes them in place, or returns others.
MISTAKES: dict[str, tuple[str, Callable[[list[Resource]], list[Resource] | None]]] = {}


def mistake(rule: str) -> Callable:
    def add(change: Callable[[list[Resource]], list[Resource] | None]) -> Callable:
        MISTAKES[change.__name__] = (rule, change)
        return change

    return add


@mistake("gpu-pools-are-tainted")
def a_gpu_pool_without_its_taint(r):
    gpu_pool(r).inputs["nodeConfig"]["taints"] = []


@mistake("gpu-pools-are-tainted")
def a_gpu_pool_with_the_taint_twice(r):
    gpu_pool(r).inputs["nodeConfig"]["taints"] *= 2


@mistake("gpu-pools-are-tainted")
def a_gpu_pool_whose_taint_only_prefers(r):
    gpu_pool(r).inputs["nodeConfig"]["taints"][0]["effect"] = "PREFER_NO_SCHEDULE"


@mistake("heads-are-never-on-spot")
def a_cpu_pool_on_spot(r):
    cpu_pool(r).inputs["nodeConfig"]["spot"] = True


@mistake("heads-are-never-on-spot")
def a_head_that_asks_for_spot(r):
    head(r)["template"]["spec"]["nodeSelector"]["cloud.google.com/gke-spot"] = "true"


@mistake("heads-are-never-on-spot")
def a_head_that_may_take_a_gpu_node(r):
    head(r)["template"]["spec"]["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists"}]


@mistake("production-clusters-are-protected")
def a_cluster_that_google_may_delete(r):
    inputs(of_kind(r, "Cluster"))["deletionProtection"] = False


@mistake("production-clusters-are-protected")
def a_cluster_that_pulumi_may_delete(r):
    return unprotected(r, of_kind(r, "Cluster"))


@mistake("production-gpu-pools-are-protected")
def a_gpu_pool_that_pulumi_may_replace(r):
    return unprotected(r, gpu_pool(r))


@mistake("nodes-have-their-own-account")
def nodes_with_the_default_account(r):
    del cpu_pool(r).inputs["nodeConfig"]["serviceAccount"]


@mistake("nodes-have-their-own-account")
def nodes_that_show_their_credentials(r):
    gpu_pool(r).inputs["nodeConfig"]["workloadMetadataConfig"]["mode"] = "GCE_METADATA"


@mistake("production-nodes-are-private")
def nodes_with_public_addresses(r):
    of_kind(r, "Cluster").inputs["privateClusterConfig"]["enablePrivateNodes"] = False


@mistake("gpus-stay-within-the-limit")
def more_gpus_than_the_team_may_have(r):
    gpu_pool(r).inputs["autoscaling"]["totalMaxNodeCount"] = 1000


@mistake("gpus-stay-within-the-limit")
def a_ladder_of_more_gpus_than_the_team_may_have(r):
    inputs(of_kind(r, "ResourceQuota"))["spec"]["hard"]["requests.nvidia.com/gpu"] = "1000"


@mistake("switches-are-on-everywhere")
def a_switch_that_says_true(r):
    switch(worker(r), "RAY_SERVE_ENABLE_HA_PROXY")["value"] = "true"


@mistake("switches-are-on-everywhere")
def a_switch_that_is_off(r):
    for pod in (head(r)["template"]["spec"], worker(r)):
        switch(pod, "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING")["value"] = "0"


@mistake("switches-are-on-everywhere")
def a_switch_that_the_head_does_not_have(r):
    env = environment(head(r)["template"]["spec"])
    env[:] = [one for one in env if one["name"] != "VLLM_USE_RAY_V2_EXECUTOR_BACKEND"]


@mistake("environments-are-equal")
def a_variable_on_the_workers_alone(r):
    environment(worker(r)).append({"name": "RAY_SERVE_HAPROXY_NBTHREAD", "value": "1"})


@mistake("images-are-pinned")
def an_image_without_a_tag(r):
    worker(r)["containers"][0]["image"] = "registry.example:5000/ray-llm"


@mistake("images-are-pinned")
def an_image_that_moves(r):
    head(r)["template"]["spec"]["containers"][0]["image"] = "rayproject/ray-llm:nightly-py312-cu130"


@mistake("tokens-are-never-plain")
def a_token_in_an_environment(r):
    environment(worker(r)).append({"name": "MY_TOKEN", "value": "whatever it is"})


@mistake("tokens-are-never-plain")
def a_token_in_the_serve_configuration(r):
    spec = of_kind(r, "RayService").inputs["spec"]
    spec["serveConfigV2"] += "runtime_env: {env_vars: {X: hf_" + "a" * 34 + "}}"


@mistake("services-stay-inside")
def a_dashboard_on_a_load_balancer(r):
    head(r)["serviceType"] = "LoadBalancer"


@mistake("services-stay-inside")
def a_dashboard_behind_an_ingress(r):
    head(r)["enableIngress"] = True


@mistake("services-stay-inside")
def a_serving_port_on_every_node(r):
    of_kind(r, "RayService").inputs["spec"]["serveService"] = {"spec": {"type": "NodePort"}}


@mistake("services-stay-inside")
def a_service_of_its_own_for_the_outside(r):
    return [*r, Resource("kubernetes:core/v1:Service", "door", {"spec": {"type": "LoadBalancer"}})]


@mistake("pods-are-not-root")
def a_pod_that_may_be_root(r):
    worker(r)["securityContext"]["runAsNonRoot"] = False


@mistake("pods-are-not-root")
def a_container_that_may_rise(r):
    del worker(r)["containers"][0]["securityContext"]["allowPrivilegeEscalation"]


@mistake("namespaces-are-isolated")
def a_namespace_that_only_warns(r):
    namespace = next(x for x in r if x.kind == "Namespace" and x.at("metadata.name") == "rayline")
    namespace.inputs["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "baseline"


@mistake("namespaces-are-isolated")
def a_namespace_without_policies(r):
    return without(r, "NetworkPolicy")


@mistake("namespaces-are-isolated")
def a_namespace_without_a_quota(r):
    return without(r, "ResourceQuota")


def endpoint(resources: list[Resource], *, tls: bool = True, redirect: bool = True) -> list[Resource]:
    """The resources with a public gateway in front of the service."""
    name = of_kind(resources, "RayService").at("metadata.name")
    certificate = {"networking.gke.io/certmap": "map"} if tls else {}
    plain_rules = (
        [{"filters": [{"type": "RequestRedirect"}]}] if redirect else [{"backendRefs": [{"name": f"{name}-serve-svc"}]}]
    )
    gateway = {
        "metadata": {"name": "door", "annotations": certificate},
        "spec": {
            "gatewayClassName": "gke-l7-global-external-managed",
            "listeners": [{"name": "https", "protocol": "HTTPS"}, {"name": "http", "protocol": "HTTP"}],
        },
    }
    served = {
        "spec": {
            "parentRefs": [{"name": "door", "sectionName": "https"}],
            "rules": [{"backendRefs": [{"name": f"{name}-serve-svc"}]}],
        }
    }
    plain = {"spec": {"parentRefs": [{"name": "door", "sectionName": "http"}], "rules": plain_rules}}
    return [
        *resources,
        Resource("kubernetes:gateway.networking.k8s.io/v1:Gateway", "door", gateway),
        Resource("kubernetes:gateway.networking.k8s.io/v1:HTTPRoute", "served", served),
        Resource("kubernetes:gateway.networking.k8s.io/v1:HTTPRoute", "plain", plain),
    ]


@mistake("public-endpoints-are-guarded")
def a_public_endpoint_without_a_certificate(r):
    return endpoint(r, tls=False)


@mistake("public-endpoints-are-guarded")
def a_public_endpoint_that_serves_over_plain_http(r):
    return endpoint(r, redirect=False)


@mistake("public-endpoints-are-guarded")
def a_public_endpoint_that_asks_nobody(r):
    text = str(of_kind(r, "RayService").at("metadata.name")) + "-api-key"
    service = of_kind(r, "RayService")
    without_key = _replaced(service.inputs, text, "no-such-secret")
    return endpoint([Resource(x.type, x.name, without_key, x.protect) if x is service else x for x in r])


def _replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, old, new) for item in value]
    return new if value == old else value


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_production_is_stopped_by_its_rule_and_by_no_other(name):
    rule, change = MISTAKES[name]
    resources = seen(recorded("prod-l4"))
    changed = change(resources) or resources
    found = {broken for broken, _, _ in violations(changed, TeamSettings("prod-l4", max_gpus=64))}
    expected = {rule, "environments-are-equal"} if "switch_that" in name and "off" not in name else {rule}
    assert found == expected


def test_every_rule_stops_some_mistake():
    assert {rule for rule, _ in MISTAKES.values()} == set(NAMES)


def test_a_guarded_public_endpoint_is_fine():
    assert violations(endpoint(seen(recorded("prod-l4"))), TeamSettings("prod-l4")) == []


def test_iap_takes_the_place_of_a_key():
    resources = endpoint(seen(recorded("prod-l4")))
    service = of_kind(resources, "RayService")
    name = service.at("metadata.name")
    keyless = _replaced(service.inputs, f"{name}-api-key", "no-such-secret")
    policy = {"spec": {"targetRef": {"kind": "Service", "name": f"{name}-serve-svc"}, "default": {"iap": {"enabled": True}}}}
    changed = [Resource(x.type, x.name, keyless) if x is service else x for x in resources]
    guarded = [*changed, Resource("kubernetes:networking.gke.io/v1:GCPBackendPolicy", "iap", policy)]
    assert {rule for rule, _, _ in violations(changed, TeamSettings("dev"))} == {"public-endpoints-are-guarded"}
    assert violations(guarded, TeamSettings("dev")) == []


def test_development_may_do_without_protection():
    resources = seen(recorded("prod-l4"))
    inputs(of_kind(resources, "Cluster"))["deletionProtection"] = False
    assert violations([Resource(r.type, r.name, r.inputs, False) for r in resources], TeamSettings("dev-l4")) == []


def test_a_team_may_call_other_stacks_production():
    resources = [Resource(r.type, r.name, r.inputs, False) for r in seen(recorded("prod-l4"))]
    rules = {rule for rule, _, _ in violations(resources, TeamSettings("live-eu", production=["live-"]))}
    assert rules == {"production-clusters-are-protected", "production-gpu-pools-are-protected"}


def test_a_team_may_allow_a_switch_to_be_off():
    resources = seen(recorded("prod-l4"))
    a_switch_that_is_off(resources)
    assert violations(resources, TeamSettings("prod-l4", switches_off=["direct_streaming"])) == []


@pytest.mark.parametrize(
    ("image", "fixed"),
    [
        ("rayproject/ray-llm:2.60.0-py312-cu130", True),
        ("registry.example:5000/team/ray@sha256:" + "0" * 64, True),
        ("registry.example:5000/team/ray", False),
        ("ray:latest", False),
        ("ray:latest-gpu", False),
        ("ray:2.60.0-devel", True),
        ("ray", False),
    ],
)
def test_an_image_is_pinned_by_a_version_or_a_digest(image, fixed):
    assert pinned(image) is fixed


def test_the_rules_know_the_facts_and_the_reading_of_a_ray_service_alone():
    text = (ROOT / "policy" / "rules.py").read_text()
    imports = [line for line in text.splitlines() if line.startswith(("import ", "from ")) and "rayline" in line]
    assert imports
    assert all(line.startswith(("from rayline.facts.", "from rayline.service.reading ")) for line in imports)


def test_the_page_about_policy_lists_every_rule_with_its_settings():
    page = (ROOT / "docs" / "policy.md").read_text()
    for rule in RULES:
        row = next(line for line in page.splitlines() if line.startswith(f"| `{rule.name}` | "))
        assert rule.description in row
        assert all(f"`{setting}`" in row for setting in rule.settings)


# --- a file of settings


def test_the_documented_settings_are_known(tmp_path: pathlib.Path) -> None:
    example = re.search(r"```json\n(.*?)```", (ROOT / "docs" / "policy.md").read_text(), re.DOTALL)
    assert example
    (tmp_path / "settings.json").write_text(example[1])
    policy_config.read_config(tmp_path / "settings.json")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            '{"gpus-stay-within-the-limit": {"max_gpu": 4, "enforcementLevel": "advisory"}}',
            "gpus-stay-within-the-limit.max_gpu: no such setting. Fix: did you mean max_gpus?",
        ),
        ('{"gpus-stay-within": "disabled"}', "no such rule. Fix: did you mean gpus-stay-within-the-limit?"),
        ('{"pods-are-not-root": {"x": 1}}', "pods-are-not-root.x: no such setting. Fix: one of enforcementLevel"),
        ("[]", "it holds no map of rules"),
        ("{", "it is not JSON"),
    ],
)
def test_up_refuses_a_rule_or_setting_that_the_pack_does_not_have(tmp_path: pathlib.Path, config: str, said: str) -> None:
    file = tmp_path / "settings.json"
    file.write_text(config)
    result = CliRunner().invoke(cli.app, ["up", "--stack", "kind", "--yes", "--policy-config", str(file)])
    assert result.exit_code == 2
    assert said in result.stderr
