"""A VPC, a namespace and nodes that exist before the stack: what the kit leaves out, and what it puts on them."""

from collections.abc import Callable

import pytest

from rayline_cli import render
from rayline_cli.offline import Program, ProgramError

CREATE = "gcp:project: my-project\ngcp:region: us-central1\n"
VPC = "projects/host-project/global/networks/shared"
SUBNET = "projects/host-project/regions/us-central1/subnetworks/gke"
NETWORK = f"existing: {{network: {VPC}, subnetwork: {SUBNET}, pods_range: gke-pods, services_range: gke-services}}"
QWEN = "services:\n  qwen: {model: Qwen/Qwen3.5-4B, accelerator: l4%s}\n"


@pytest.fixture
def created(record_file: Callable[..., Program]) -> Callable[..., Program]:
    def record(network: str = NETWORK, more: str = "") -> Program:
        return record_file(f"{CREATE}cluster: {{mode: create, network: {{{network}}}}}\n{more}{QWEN % ''}")

    return record


@pytest.fixture
def existing(record_file: Callable[..., Program]) -> Callable[..., Program]:
    def record(service: str = "", more: str = "", accelerator: str = "l4") -> Program:
        text = f"cluster: {{mode: existing, context: eks}}\n{more}{QWEN % service}"
        return record_file(text.replace("accelerator: l4", f"accelerator: {accelerator}"))

    return record


# --- a network


def test_a_cluster_in_a_shared_vpc_makes_no_network_of_its_own(created):
    program = created()
    assert program.of_type("Network") == program.of_type("Subnetwork") == program.of_type("RouterNat") == []
    inputs = program.of_type("container/cluster:Cluster")[0].inputs
    assert (inputs["network"], inputs["subnetwork"]) == (VPC, SUBNET)
    assert inputs["ipAllocationPolicy"] == {
        "clusterSecondaryRangeName": "gke-pods",
        "servicesSecondaryRangeName": "gke-services",
    }


def test_an_internal_endpoint_makes_its_proxy_subnet_in_the_host_project(created):
    endpoint = "endpoint: {exposure: internal, domain: llm.example.com, proxy_cidr: 10.9.0.0/23%s}\n"
    (proxies,) = created(more=endpoint % "").of_type("compute/subnetwork:Subnetwork")
    assert (proxies.inputs["project"], proxies.inputs["network"]) == ("host-project", VPC)
    program = created(more=endpoint % ", create_proxy_subnet: false")
    assert program.of_type("compute/subnetwork:Subnetwork") == []
    assert program.of_type("compute/address:Address")[0].inputs["subnetwork"] == SUBNET


@pytest.mark.parametrize(
    ("network", "more", "message"),
    [
        (f"{NETWORK}, nodes_cidr: 10.0.0.0/18", "", "cluster.network.nodes_cidr (got '10.0.0.0/18'): the subnet of"),
        (NETWORK.replace("us-central1", "europe-west4"), "", "cluster.network.existing.subnetwork"),
        (NETWORK.replace("global/networks", "networks"), "", "projects/PROJECT/global/networks/NETWORK"),
        (NETWORK, "head: {store: memorystore}\n", "head.store (got 'memorystore'): a Shared VPC reaches Memorystore"),
        (NETWORK, "endpoint: {exposure: internal, domain: a.example.com}\n", "endpoint.proxy_cidr: required in a network that exists"),
        ("nodes_cidr: 10.0.0.0/18", "endpoint: {exposure: internal, domain: a.example.com, create_proxy_subnet: false}\n", "endpoint.create_proxy_subnet (got false): only with cluster.network.existing"),
    ],
)  # fmt: skip
def test_what_a_network_that_exists_cannot_have_is_refused(created, network, more, message):
    with pytest.raises(ProgramError) as error:
        created(network, more)
    assert message in str(error.value)


# --- a namespace


def test_a_namespace_that_exists_gets_labels_and_outlives_the_stack(existing):
    program = existing(more="namespace: team-a\ncreate_namespace: false\n")
    (patch,) = program.of_type("core/v1:NamespacePatch")
    assert patch.inputs["metadata"]["name"] == "team-a"
    assert [made.name for made in program.of_type("core/v1:Namespace")] == ["test-kuberay-namespace"]
    assert any("hold for everything in team-a" in warning for warning in program.plan.warnings)


def test_a_namespace_of_a_new_cluster_cannot_exist(record_file):
    with pytest.raises(ProgramError, match=r"create_namespace \(got false\): only with cluster\.mode existing"):
        record_file(f"{CREATE}cluster: {{mode: create}}\ncreate_namespace: false\n{QWEN % ''}")


# --- nodes


def test_workers_find_nodes_of_another_cloud_by_their_labels_and_taints(existing):
    nodes = ", nodes: {selector: {nvidia.com/gpu.product: NVIDIA-L4}, tolerations: [{key: team, value: a, effect: NoSchedule}, {key: gpu}]}"
    (service,) = render.ray_services(existing(nodes))
    spec = service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]
    assert spec["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-L4"}
    assert spec["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "team", "operator": "Equal", "value": "a", "effect": "NoSchedule"},
        {"key": "gpu", "operator": "Exists"},
    ]


def test_annotations_are_on_every_pod(existing):
    (service,) = render.ray_services(existing(", pods: {annotations: {sidecar.istio.io/inject: 'false'}}"))
    cluster = service["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], cluster["workerGroupSpecs"][0]):
        assert group["template"]["metadata"]["annotations"]["sidecar.istio.io/inject"] == "false"


@pytest.mark.parametrize(
    ("service", "message"),
    [
        (", nodes: {selector: {a b: c}}", "a node label's key"),
        (", nodes: {tolerations: [{key: a, effect: Never}]}", "services.qwen.nodes.tolerations[0].effect"),
        (", pods: {annotations: {ray.io/x: y}}", "an annotation's key"),
    ],
)
def test_labels_and_annotations_that_kubernetes_or_the_kit_refuse_are_refused(existing, service, message):
    with pytest.raises(ProgramError) as error:
        existing(service)
    assert message in str(error.value)


def test_the_kits_own_nodes_take_no_selector(record_file):
    service = ", nodes: {selector: {a: b}, tolerations: [{key: a}]}"
    with pytest.raises(ProgramError) as error:
        record_file(f"{CREATE}cluster: {{mode: create}}\n{QWEN % service}")
    assert str(error.value).count("only with cluster.mode existing") == 2
