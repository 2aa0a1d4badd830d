"""The GKE cluster, its network and the project's APIs, as the program declares them."""

import json

import pytest

from rayline.cluster.manifests import kubeconfig
from rayline.facts.google import APIS
from rayline_cli.offline import Declared, Program
from tests.conftest import recorded, stacks_of
from tests.program.test_program import needs

ON_GOOGLE = stacks_of("create")
SERVICE = """
services:
  qwen: {model: Qwen/Qwen3.5-4B, accelerator: l4}
"""


def google(cluster: str = "", more: str = "") -> str:
    """A stack file for a new cluster with these keys."""
    return f"gcp:project: my-project\ngcp:region: us-central1\ncluster: {{mode: create{cluster}}}\n{more}{SERVICE}"


def cluster_of(program: Program) -> Declared:
    return program.of_type("cluster:Cluster")[0]


@pytest.fixture
def cluster(record_file):
    """The inputs of the cluster that a stack file with these keys declares."""

    def record(keys: str = "", more: str = "") -> dict:
        return cluster_of(record_file(google(keys, more))).inputs

    return record


# --- the way to the control plane


def test_the_control_plane_answers_under_its_dns_name_alone_unless_networks_are_named(cluster):
    inputs = cluster()
    assert inputs["controlPlaneEndpointsConfig"] == {
        "dnsEndpointConfig": {"allowExternalTraffic": True},
        "ipEndpointsConfig": {"enabled": False},
    }
    assert "masterAuthorizedNetworksConfig" not in inputs
    assert inputs["privateClusterConfig"] == {"enablePrivateNodes": True}


def test_named_networks_open_the_ip_endpoint_for_themselves_only(cluster):
    inputs = cluster(", dns_endpoint: false, authorized_networks: [{cidr: 203.0.113.0/24, name: office}, {cidr: 10.9.0.0/16}]")
    assert inputs["controlPlaneEndpointsConfig"] == {
        "dnsEndpointConfig": {"allowExternalTraffic": False},
        "ipEndpointsConfig": {"enabled": True},
    }
    assert inputs["masterAuthorizedNetworksConfig"] == {
        "cidrBlocks": [
            {"cidrBlock": "203.0.113.0/24", "displayName": "office"},
            {"cidrBlock": "10.9.0.0/16", "displayName": "10.9.0.0/16"},
        ],
        "gcpPublicCidrsAccessEnabled": False,
    }


def test_the_kubeconfig_trusts_the_clusters_own_authority_only_at_the_ip_endpoint(record_file):
    def server(program: Program) -> dict:
        provider = program.of_type("pulumi:providers:kubernetes")[0]
        return json.loads(provider.inputs["kubeconfig"])["clusters"][0]["cluster"]

    # the recorder knows no DNS name; that one is asked for is seen in the absence of the other's certificate
    by_name = server(record_file(google(", authorized_networks: [{cidr: 203.0.113.0/24}]")))
    assert by_name.keys() == {"server"}
    by_address = server(record_file(google(", dns_endpoint: false, authorized_networks: [{cidr: 203.0.113.0/24}]")))
    assert by_address == {
        "server": "https://(endpoint of test-cluster)",
        "certificate-authority-data": "(certificate of test-cluster)",
    }


def test_a_kubeconfig_holds_no_credentials():
    user = json.loads(kubeconfig("c", "gke-1.gke.goog"))["users"][0]["user"]
    assert user.keys() == {"exec"}
    assert user["exec"]["command"] == "gke-gcloud-auth-plugin"


def test_kubectl_gets_the_credentials_that_pulumi_gets():
    # as it stands the plug-in asks gcloud, which after `gcloud auth application-default login` alone has nobody
    user = json.loads(kubeconfig("c", "gke-1.gke.goog"))["users"][0]["user"]
    assert user["exec"]["args"] == ["--use_application_default_credentials"]


# --- upgrades


def test_upgrades_happen_at_weekends_unless_the_stack_says_otherwise(cluster):
    assert cluster()["maintenancePolicy"] == {
        "recurringWindow": {
            "startTime": "2026-01-03T08:00:00Z",
            "endTime": "2026-01-03T16:00:00Z",
            "recurrence": "FREQ=WEEKLY;BYDAY=SA,SU",
        },
        "maintenanceExclusions": [],
    }


def test_an_exclusion_without_an_end_lasts_until_the_end_of_support(cluster):
    policy = cluster(
        """, maintenance: {exclusions: [
        {name: keep, start: "2026-11-21T00:00:00Z", scope: no-minor-or-node-upgrades},
        {name: sale, start: "2026-11-20T00:00:00Z", end: "2026-12-01T00:00:00Z", scope: no-upgrades}]}""".replace("\n", "")
    )["maintenancePolicy"]
    assert policy["maintenanceExclusions"] == [
        {
            "exclusionName": "keep",
            "startTime": "2026-11-21T00:00:00Z",
            "exclusionOptions": {"scope": "NO_MINOR_OR_NODE_UPGRADES", "endTimeBehavior": "UNTIL_END_OF_SUPPORT"},
        },
        {
            "exclusionName": "sale",
            "startTime": "2026-11-20T00:00:00Z",
            "endTime": "2026-12-01T00:00:00Z",
            "exclusionOptions": {"scope": "NO_UPGRADES"},
        },
    ]


@pytest.mark.parametrize("stack", ["prod-l4", "prod-b200"])
def test_production_keeps_its_version_and_its_nodes_until_somebody_decides(stack):
    exclusions = cluster_of(recorded(stack)).inputs["maintenancePolicy"]["maintenanceExclusions"]
    assert [one["exclusionOptions"]["scope"] for one in exclusions] == ["NO_MINOR_OR_NODE_UPGRADES"]
    assert len(recorded(stack).plan.cluster.zones) == 3


def test_an_upgrade_of_the_cpu_pool_makes_the_new_node_first(record_file):
    pool = record_file(google()).named("test-system")
    assert pool.inputs["upgradeSettings"] == {"strategy": "SURGE", "maxSurge": 1, "maxUnavailable": 0}
    assert pool.inputs["networkConfig"] == {"enablePrivateNodes": True}


def test_the_disk_of_a_cpu_node_has_the_size_that_the_stack_names_and_a_type_that_the_machine_takes(record_file):
    def disk(keys: str = "") -> dict:
        return record_file(google(keys)).named("test-system").inputs["nodeConfig"]["bootDisk"]

    assert disk() == {"diskType": "pd-balanced", "sizeGb": 100}
    # Google refuses persistent disks on N4 machines
    assert disk(", system_pool: {machine_type: n4-standard-16}") == {"diskType": "hyperdisk-balanced", "sizeGb": 100}
    assert disk(", system_pool: {disk_gib: 250}") == {"diskType": "pd-balanced", "sizeGb": 250}


# --- what is always so


@pytest.mark.parametrize("stack", ON_GOOGLE)
def test_every_cluster_has_what_cannot_be_added_later_and_what_the_other_parts_rely_on(stack):
    inputs = cluster_of(recorded(stack)).inputs
    assert inputs["datapathProvider"] == "ADVANCED_DATAPATH"
    assert inputs["networkingMode"] == "VPC_NATIVE"
    assert inputs["workloadIdentityConfig"] == {"workloadPool": "my-project.svc.id.goog"}
    assert inputs["gatewayApiConfig"] == {"channel": "CHANNEL_STANDARD"}
    assert inputs["addonsConfig"]["httpLoadBalancing"] == {"disabled": False}
    assert inputs["enableShieldedNodes"] is True
    assert inputs["clusterAutoscaling"] == {"autoscalingProfile": "OPTIMIZE_UTILIZATION"}


def test_nodes_may_not_read_every_bucket_of_the_project(record_file):
    roles = {grant.inputs["role"] for grant in record_file(google()).of_type(":IAMMember")}
    assert "roles/logging.logWriter" in roles
    assert not {role for role in roles if role.startswith("roles/storage.")}


# --- switches


def test_gpu_metrics_come_with_managed_prometheus_and_go_with_it(cluster):
    on, off = cluster()["monitoringConfig"], cluster(", monitoring: {managed_prometheus: false}")["monitoringConfig"]
    assert on["managedPrometheus"] == {"enabled": True, "autoMonitoringConfig": {"scope": "NONE"}}
    assert {"SYSTEM_COMPONENTS", "DCGM", "POD"} <= set(on["enableComponents"])
    assert off == {"enableComponents": ["SYSTEM_COMPONENTS"], "managedPrometheus": {"enabled": False}}
    assert "DCGM" not in cluster(", monitoring: {dcgm: false}")["monitoringConfig"]["enableComponents"]


def test_pods_logs_are_collected_unless_a_stack_says_no(cluster):
    assert cluster()["loggingConfig"] == {"enableComponents": ["SYSTEM_COMPONENTS", "WORKLOADS"]}
    assert cluster(", monitoring: {workload_logs: false}")["loggingConfig"] == {"enableComponents": ["SYSTEM_COMPONENTS"]}


def test_image_streaming_cost_allocation_zones_and_labels_are_the_stacks(record_file):
    program = record_file(
        google(", image_streaming: false, cost_allocation: false, zones: [us-central1-f], labels: {team: search}")
    )
    inputs = cluster_of(program).inputs
    assert inputs["nodePoolDefaults"]["nodeConfigDefaults"]["gcfsConfig"] == {"enabled": False}
    assert program.named("test-system").inputs["nodeConfig"]["gcfsConfig"] == {"enabled": False}
    assert inputs["costManagementConfig"] == {"enabled": False}
    assert inputs["nodeLocations"] == ["us-central1-f"]
    assert inputs["resourceLabels"] == {"team": "search"}
    assert not {"containerfilesystem.googleapis.com"} & apis(program)


def test_google_picks_the_zones_where_a_stack_names_none(cluster):
    assert not {"nodeLocations", "resourceLabels"} & cluster().keys()


# --- APIs


def apis(program: Program) -> set[str]:
    return {service.inputs["service"] for service in program.of_type("projects/service:Service")}


def test_the_apis_come_first_and_stay_on_when_the_stack_goes(record_file):
    program = record_file(google())
    assert apis(program) == {*APIS, "containerfilesystem.googleapis.com"}
    for service in program.of_type("projects/service:Service"):
        assert service.inputs["disableOnDestroy"] is False
        assert service.inputs["disableDependentServices"] is False
    services = {service.urn for service in program.of_type("projects/service:Service")}
    for resource in program.resources:
        if resource.type.startswith("gcp:") and resource.urn not in services:
            assert services <= needs(program, resource), resource.name


def test_a_project_whose_apis_somebody_else_keeps_is_left_alone(record_file):
    assert apis(record_file(google(", enable_apis: false"))) == set()
