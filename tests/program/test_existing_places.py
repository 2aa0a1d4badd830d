"""A VPC, a namespace, nodes and a GKE cluster that exist before the stack: what the kit leaves out, and what it puts on them."""

import re
from collections.abc import Callable

import pytest

from rayline_cli import render
from rayline_cli.offline import Program, ProgramError
from rayline_cli.permissions import roles_for
from tests.conftest import ROOT
from tests.program.test_program import needs, urns

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


# --- a GKE cluster

GKE = "gcp:project: my-project\ngcp:region: us-central1\ncluster: {mode: existing, context: shared, gke: true%s}\n"
ITS_NETWORK = f", network: {{existing: {{network: {VPC}, subnetwork: {SUBNET}}}}}"


@pytest.fixture
def in_gke(record_file: Callable[..., Program]) -> Callable[..., Program]:
    def record(more: str, service: str = "", cluster: str = "") -> Program:
        return record_file(f"{GKE % cluster}{more}{QWEN % service}")

    return record


def of_a_cluster(program: Program) -> list[str]:
    """The declared parts of a cluster: none of them, where it exists."""
    made = (
        "compute/network:Network",
        "router:Router",
        "cluster:Cluster",
        "nodePool:NodePool",
        "account:Account",
        "iAMMember:IAMMember",
    )
    return [resource.type for resource in program.resources if resource.type.endswith(made)]


def test_the_example_of_the_page_declares_what_is_around_the_cluster_and_no_cluster(record_file):
    page = (ROOT / "docs" / "platform-teams.md").read_text().partition("## A GKE cluster that exists")[2]
    example = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert example
    program = record_file(example[1])
    assert of_a_cluster(program) == []
    assert {resource.type.partition(":")[2].partition("/")[0] for resource in program.resources if resource.type.startswith("gcp:")} == {
        "certificatemanager", "compute", "projects", "redis", "secretmanager", "storage",
    }  # fmt: skip
    assert {resource.type.rpartition(":")[2] for resource in program.resources} >= {
        "Gateway",
        "HTTPRoute",
        "SecretProviderClass",
        "Job",
    }


def test_pods_of_a_gke_cluster_have_the_identities_of_its_project(in_gke):
    program = in_gke(
        "weights: {bucket: my-models}\nhugging_face: {source: secret-manager, secret: hf}\n", ", weights: {source: gcs-fuse}"
    )
    grants = [*program.of_type(":BucketIAMMember"), *program.of_type(":SecretIamMember")]
    assert grants
    assert all(
        "/workloadIdentityPools/my-project.svc.id.goog/subject/ns/rayline/sa/" in grant.inputs["member"] for grant in grants
    )
    # the API that answers with the project's number is on before that
    apis = urns(program.of_type("projects/service:Service"))
    assert all(apis <= needs(program, grant) for grant in grants)


def test_a_copy_runs_on_any_node_of_a_gke_cluster(in_gke):
    (job,) = in_gke("weights: {bucket: my-models}\n", ", weights: {source: gcs-fuse}").of_type("batch/v1:Job")
    assert "nodeSelector" not in job.inputs["spec"]["template"]["spec"]


def test_pods_of_a_gke_cluster_reach_its_metadata_server(in_gke, existing):
    def egress(program: Program) -> str:
        return str(
            next(policy for policy in render.network_policies(program) if policy["metadata"]["name"] == "internet-egress")
        )

    assert "169.254.169.254/32" in egress(in_gke(""))
    assert "169.254.169.254/32" not in egress(existing())


def test_a_public_endpoint_of_a_gke_cluster_needs_no_network(in_gke):
    program = in_gke("endpoint: {exposure: public, domain: llm.example.com, rate_limit_per_minute: 60}\n")
    assert {resource.type.rpartition(":")[2] for resource in program.resources if resource.type.startswith("gcp:compute")} == {
        "GlobalAddress", "SSLPolicy", "SecurityPolicy",
    }  # fmt: skip
    (gateway,) = program.of_type(":Gateway")
    assert urns(program.of_type("GlobalAddress")) <= needs(program, gateway)


def test_an_internal_endpoint_of_a_gke_cluster_lies_in_its_network(in_gke):
    program = in_gke("endpoint: {exposure: internal, domain: llm.example.com, proxy_cidr: 10.9.0.0/23}\n", cluster=ITS_NETWORK)
    assert program.of_type("compute/address:Address")[0].inputs["subnetwork"] == SUBNET
    (proxies,) = program.of_type("compute/subnetwork:Subnetwork")
    assert (proxies.inputs["project"], proxies.inputs["network"]) == ("host-project", VPC)


def test_a_bucket_beside_a_gke_cluster_stays_unless_the_stack_says_so(in_gke):
    weights = ("weights: {bucket: my-models}\n", ", weights: {source: gcs-fuse}")
    assert in_gke(*weights).of_type("storage/bucket:Bucket")[0].protect
    assert not in_gke(*weights, ", deletion_protection: false").of_type("storage/bucket:Bucket")[0].protect


def test_apis_of_a_gke_cluster_stay_as_they_are_on_wish(in_gke):
    assert in_gke("", cluster=", enable_apis: false").of_type("projects/service:Service") == []


def test_a_deployer_beside_a_gke_cluster_needs_no_rights_on_clusters(in_gke):
    roles = {
        role.role
        for role in roles_for(in_gke("endpoint: {exposure: public, domain: llm.example.com, rate_limit_per_minute: 60}\n"))
    }
    assert {"roles/compute.networkAdmin", "roles/compute.securityAdmin", "roles/certificatemanager.owner"} <= roles
    assert roles.isdisjoint({"roles/container.admin", "roles/iam.serviceAccountAdmin"})
