"""The resources that the real program declares for every stack: what hangs where, what waits for what, what is protected."""

import json
from collections.abc import Iterable

import pytest
import yaml

from rayline_cli import offline
from rayline_cli.offline import MASK, Declared, Program
from tests.conftest import recorded, stacks_of

ON_GOOGLE = stacks_of("create")
IN_A_CLUSTER = stacks_of("create", "existing")

GPU_POOL = "rayline:index:GpuNodePool"
NODE_POOL = "gcp:container/nodePool:NodePool"


@pytest.fixture(params=ON_GOOGLE)
def google(request: pytest.FixtureRequest) -> Program:
    """Every stack that makes a GKE cluster."""
    return recorded(request.param)


@pytest.fixture(params=IN_A_CLUSTER)
def clustered(request: pytest.FixtureRequest) -> Program:
    """Every stack that is deployed with Pulumi."""
    return recorded(request.param)


def by_urn(program: Program) -> dict[str, Declared]:
    return {resource.urn: resource for resource in program.resources}


def ancestors(program: Program, resource: Declared) -> list[Declared]:
    known = by_urn(program)
    found = []
    while resource.parent in known:
        resource = known[resource.parent]
        found.append(resource)
    return found


def needs(program: Program, resource: Declared) -> set[str]:
    """Everything that exists before a resource and is deleted after it: dependencies, parents and providers, transitively."""
    known = by_urn(program)
    seen: set[str] = set()
    todo: list[Declared] = [resource]
    while todo:
        one = todo.pop()
        for urn in (*one.dependencies, one.parent, one.provider.rpartition("::")[0]):
            if urn in known and urn not in seen:
                seen.add(urn)
                todo.append(known[urn])
    return seen


def urns(resources: Iterable[Declared]) -> set[str]:
    return {resource.urn for resource in resources}


def node_pools(program: Program) -> tuple[Declared, list[Declared]]:
    """The CPU pool, and the GPU pools."""
    pools = [resource for resource in program.resources if resource.type == NODE_POOL]
    system = [pool for pool in pools if pool.name.endswith("-system")]
    assert len(system) == 1
    return system[0], [pool for pool in pools if pool not in system]


# --- what hangs where


def test_a_stack_declares_one_platform_and_everything_hangs_under_it(program):
    platform = program.of_type(":InferencePlatform")
    assert len(platform) == 1
    assert platform[0].parent.endswith(f"::rayline-{program.stack}")
    for resource in program.resources:
        if resource is not platform[0]:
            assert platform[0] in ancestors(program, resource), resource.urn


def test_only_components_are_direct_children_beside_the_provider_and_the_namespace(program):
    platform = program.of_type(":InferencePlatform")[0]
    direct = [resource for resource in program.resources if resource.parent == platform.urn]
    assert {resource.type for resource in direct if resource.custom} == {
        "pulumi:providers:kubernetes",
        "kubernetes:core/v1:Namespace",
    }


def test_names_begin_with_the_stack_so_that_two_stacks_can_share_a_project(program):
    for resource in program.resources:
        assert resource.name == program.stack or resource.name.startswith(f"{program.stack}-")


def test_kubernetes_resources_use_the_platforms_provider_and_crds_their_own(program):
    mine = {one.name.rpartition("-")[2]: one.urn for one in program.of_type("pulumi:providers:kubernetes")}
    assert mine.keys() <= {"kubernetes", "crds"}
    for resource in program.resources:
        if resource.type.startswith("kubernetes:"):
            own = "crds" if resource.type.endswith(":ConfigGroup") else "kubernetes"
            assert resource.provider.startswith(f"{mine[own]}::"), resource.name


def test_a_provider_stays_while_its_cluster_does_whatever_happens_to_the_kubeconfig(google):
    cluster = google.of_type("cluster:Cluster")[0]
    for provider in google.of_type("pulumi:providers:kubernetes"):
        assert provider.inputs["clusterIdentifier"] == f"{cluster.name}-id"


# --- order


def test_a_ray_service_is_deleted_before_its_operator_its_nodes_and_its_secrets(clustered):
    for service in clustered.of_type(":RayService"):
        needed = needs(clustered, service)
        own = [s for s in clustered.of_type("core/v1:Secret") if s.parent == service.parent]
        assert len(own) == 2
        for what in (
            clustered.of_type("helm.sh/v3:Release"),
            clustered.of_type(":ConfigGroup"),
            clustered.of_type("core/v1:Namespace"),
            clustered.of_type("pulumi:providers:kubernetes"),
            own,
        ):
            assert what
            assert urns(what) <= needed


def test_a_ray_service_waits_for_every_gpu_pool_and_the_cluster(google):
    _, gpu_pools = node_pools(google)
    assert gpu_pools
    for service in google.of_type(":RayService"):
        assert urns(gpu_pools) | urns(google.of_type("cluster:Cluster")) <= needs(google, service)


def test_the_crds_come_before_the_chart_which_leaves_them_out(clustered):
    release = clustered.of_type("helm.sh/v3:Release")[0]
    crds = clustered.of_type(":ConfigGroup")[0]
    assert crds.urn in needs(clustered, release)
    assert release.inputs["skipCrds"] is True
    version = clustered.plan.kuberay.version
    assert release.inputs["version"] == version
    assert release.inputs["values"]["image"]["tag"] == f"v{version}"
    assert all(f"/v{version}/" in file for file in crds.inputs["files"])
    assert sum("rayservices" in file for file in crds.inputs["files"]) == 1


EXISTING = """
cluster: {mode: existing}
services:
  qwen: {model: Qwen/Qwen3.5-4B, accelerator: l4}
"""


@pytest.mark.parametrize(
    ("stack", "kept"),
    [
        (EXISTING, True),
        (EXISTING + "kuberay: {keep_crds: false}\n", False),
        (EXISTING.replace("{mode: existing}", "{mode: create}\ngcp:project: my-project\ngcp:region: us-central1"), False),
    ],
    ids=["existing cluster", "existing cluster, not kept", "cluster of the stack"],
)
def test_crds_outlive_the_stack_on_a_cluster_that_others_may_use(record_file, stack, kept):
    program = record_file(stack)
    assert program.of_type(":ConfigGroup")[0].retain_on_delete is kept
    assert [one.name for one in program.resources if one.retain_on_delete] == (["test-kuberay-crds"] if kept else [])
    # what is kept has to be taken over by the next stack, and nothing else may be
    provider = {one.name: one.inputs for one in program.of_type("pulumi:providers:kubernetes")}
    for switch in ("upsertExistingObjects", "enablePatchForce"):
        assert str(provider["test-crds"].get(switch, False)).lower() == str(kept).lower()
        assert switch not in provider["test-kubernetes"]


def test_the_operator_may_touch_the_services_namespace_alone(clustered):
    values = clustered.of_type("helm.sh/v3:Release")[0].inputs["values"]
    assert values["singleNamespaceInstall"] is True
    assert values["watchNamespace"] == [clustered.plan.namespace]
    namespace = clustered.named(f"{clustered.stack}-namespace")
    # helm puts Roles into it, so it has to be there
    assert namespace.urn in needs(clustered, clustered.of_type("helm.sh/v3:Release")[0])


def test_nodes_wait_for_the_nat_and_for_their_accounts_rights(google):
    system, gpu_pools = node_pools(google)
    grants = google.of_type(":IAMMember")
    assert len(grants) == 5
    for pool in (system, *gpu_pools):
        needed = needs(google, pool)
        assert urns(google.of_type(":RouterNat")) <= needed
        assert urns(grants) <= needed
        assert urns(google.of_type("cluster:Cluster")) <= set(pool.dependencies)


def test_gpu_pools_come_after_the_cpu_pool_and_one_after_the_other(record_file):
    program = record_file(
        """
        gcp:project: my-project
        gcp:region: us-central1
        cluster: {mode: create}
        services:
          a: {model: Qwen/Qwen3.5-4B, accelerator: l4}
          b: {model: Qwen/Qwen3.5-4B, accelerator: l4, nodes: {capacity: spot}}
          c: {model: google/gemma-4-E2B-it, accelerator: b200, nodes: {capacity: spot}}
        """.replace("\n        ", "\n")
    )
    system, gpu_pools = node_pools(program)
    needed = {pool.name: needs(program, pool) for pool in gpu_pools}
    assert all(system.urn in before for before in needed.values())
    # a chain: each pool needs all those before it
    assert sorted(len(before & urns(gpu_pools)) for before in needed.values()) == [0, 1, 2]


# --- protection and patience


def test_the_cluster_is_protected_in_production_and_not_in_development():
    for name, protected in {"dev-l4": False, "prod-l4": True, "prod-b200": True}.items():
        cluster = recorded(name).named(f"{name}-cluster")
        assert cluster.protect is protected
        assert cluster.inputs["deletionProtection"] is protected


def test_gpu_pools_are_protected_with_their_cluster_because_their_machines_may_not_come_back(google):
    _, gpu_pools = node_pools(google)
    assert {pool.protect for pool in gpu_pools} == {google.plan.cluster.args.deletion_protection}


def test_nothing_else_is_protected(program):
    protected = [resource for resource in program.resources if resource.protect]
    gpu_pools = node_pools(program)[1] if program.of_type(NODE_POOL) else []
    kept = [r for kind in ("cluster:Cluster", "bucket:Bucket", "instance:Instance") for r in program.of_type(kind)]
    assert urns(protected) <= urns(gpu_pools) | urns(kept)


def test_slow_resources_have_the_time_that_they_need(google):
    def minutes(resource: Declared) -> tuple[int, int]:
        return int(resource.create_timeout.rstrip("m")), int(resource.delete_timeout.rstrip("m"))

    system, gpu_pools = node_pools(google)
    for resource in (google.named(f"{google.stack}-cluster"), system, *gpu_pools):
        assert min(minutes(resource)) >= 45


def test_pulumi_waits_longer_than_kuberay_and_for_the_application_not_for_the_pods(clustered):
    for service in clustered.of_type(":RayService"):
        annotations = service.inputs["metadata"]["annotations"]
        conditions = json.loads(annotations["pulumi.com/waitFor"])
        assert conditions == [
            "condition=Ready",
            "condition=UpgradeInProgress=False",
            "jsonpath={.status.activeServiceStatus.applicationStatuses.llm.status}=RUNNING",
        ]
        patience = int(annotations["ray.io/initializing-timeout"].removesuffix("s"))
        assert int(service.create_timeout.removesuffix("m")) * 60 > patience
        assert service.delete_timeout == "30m"


def test_a_parked_service_is_waited_for_by_nothing(record_file):
    # the operator leaves observedGeneration alone while a RayService is suspended, so a wait would hang at the next edit
    services = "services: {qwen: {model: Qwen/Qwen3.5-4B, accelerator: l4, park: true}}"
    program = record_file(f"gcp:project: my-project\ngcp:region: us-central1\ncluster: {{mode: create}}\n{services}\n")
    (service,) = program.of_type(":RayService")
    assert "pulumi.com/waitFor" not in service.inputs["metadata"]["annotations"]
    assert "pulumi.com/skipAwait" not in service.inputs["metadata"]["annotations"], "it would skip the wait of a removal too"
    assert len(program.of_type("v1:Secret")) == 2, "keys outlive the parking"


def test_what_google_and_the_autoscaler_change_is_no_difference(google):
    system, gpu_pools = node_pools(google)
    assert {"initialNodeCount", "nodeConfig.resourceLabels"} <= set(system.ignore_changes)
    for pool in gpu_pools:
        assert set(pool.ignore_changes) == {
            "initialNodeCount",
            "nodeConfig.resourceLabels",
            "nodeConfig.ephemeralStorageLocalSsdConfig",
        }
    # the default pool is removed at once; what is left of it in the state must not replace the cluster
    cluster = google.named(f"{google.stack}-cluster")
    assert cluster.inputs["removeDefaultNodePool"] is True
    assert {"nodeConfig", "nodePools", "initialNodeCount"} <= set(cluster.ignore_changes)


# --- node pools


def test_a_gpu_pool_states_its_card_its_driver_and_one_taint(google):
    _, gpu_pools = node_pools(google)
    card = {"l4": "nvidia-l4", "b200": "nvidia-b200"}
    assert len(gpu_pools) == len(google.plan.pools) == 1
    for resource, pool in zip(gpu_pools, google.plan.pools, strict=True):
        config = resource.inputs["nodeConfig"]
        assert config["machineType"] == pool.machine.name
        assert config["guestAccelerators"] == [
            {
                "type": card[pool.accelerator.value],
                "count": pool.machine.gpus,
                "gpuDriverInstallationConfig": {"gpuDriverVersion": "LATEST"},
            }
        ]
        assert config["taints"] == [{"key": "nvidia.com/gpu", "value": "present", "effect": "NO_SCHEDULE"}]
        assert config["labels"] == {"rayline/pool": pool.name}
        assert resource.inputs["nodeLocations"] == list(pool.zones)


def test_gpu_pools_grow_from_nothing_and_never_ask_for_a_surge_node(google):
    for resource, pool in zip(node_pools(google)[1], google.plan.pools, strict=True):
        scaling = resource.inputs["autoscaling"]
        assert (scaling["totalMinNodeCount"], scaling["totalMaxNodeCount"]) == (0, pool.max_nodes)
        assert scaling["locationPolicy"] == "ANY"
        assert resource.inputs["upgradeSettings"] == {"strategy": "SURGE", "maxSurge": 0, "maxUnavailable": 1}


def test_the_cpu_pool_has_neither_taint_nor_card_and_is_never_spot(google):
    system, _ = node_pools(google)
    config = system.inputs["nodeConfig"]
    assert config["labels"] == {"rayline/pool": "system"}
    assert not {"taints", "guestAccelerators", "spot"} & set(config)
    assert system.inputs["autoscaling"]["totalMinNodeCount"] >= 1


def test_nodes_run_as_their_own_account_with_the_rights_of_node_agents(google):
    account = google.of_type(":Account")[0]
    system, gpu_pools = node_pools(google)
    for pool in (system, *gpu_pools):
        assert account.urn in pool.dependencies
        assert pool.inputs["nodeConfig"]["serviceAccount"] == f"(email of {account.name})"
        assert pool.inputs["nodeConfig"]["workloadMetadataConfig"] == {"mode": "GKE_METADATA"}
    roles = {grant.inputs["role"] for grant in google.of_type(":IAMMember")}
    assert not any("admin" in role.lower() or role in ("roles/editor", "roles/owner") for role in roles)


def test_a_reserved_pool_takes_its_reservation_and_no_other_pool_does():
    affinity = {name: node_pools(recorded(name))[1][0].inputs["nodeConfig"]["reservationAffinity"] for name in ON_GOOGLE}
    assert affinity["prod-b200"] == {
        "consumeReservationType": "SPECIFIC_RESERVATION",
        "key": "compute.googleapis.com/reservation-name",
        "values": ["my-b200"],
    }
    assert affinity["dev-l4"] == affinity["prod-l4"] == {"consumeReservationType": "NO_RESERVATION"}


def test_b200_nodes_boot_from_the_only_disk_that_they_take():
    pool = node_pools(recorded("prod-b200"))[1][0]
    assert pool.inputs["nodeConfig"]["bootDisk"]["diskType"] == "hyperdisk-balanced"


SPOT = """
gcp:project: my-project
gcp:region: us-central1
cluster: {mode: create}
services:
  qwen: {model: Qwen/Qwen3.5-4B, accelerator: l4, nodes: {capacity: spot}}
"""


def spot_with(group: str) -> str:
    """The stack with one more group of keys."""
    return SPOT.replace("nodes: {capacity: spot}", f"nodes: {{capacity: spot}}, {group}")


def test_a_spot_pool_is_spot_and_its_workers_select_it(record_file):
    program = record_file(SPOT)
    pool = node_pools(program)[1][0]
    assert pool.inputs["nodeConfig"]["spot"] is True
    assert pool.inputs["nodeConfig"]["reservationAffinity"] == {"consumeReservationType": "NO_RESERVATION"}
    workers = program.of_type(":RayService")[0].inputs["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    assert workers["template"]["spec"]["nodeSelector"]["cloud.google.com/gke-spot"] == "true"


def test_pools_on_demand_are_not_spot():
    assert "spot" not in node_pools(recorded("dev-l4"))[1][0].inputs["nodeConfig"]


# --- modes


@pytest.mark.parametrize("name", ["local", "kind"])
def test_a_cluster_that_exists_gets_no_google_resource(name):
    assert [resource.type for resource in recorded(name).resources if "gcp" in resource.type] == []


def test_this_machine_gets_no_operator():
    program = recorded("local")
    assert program.of_type("helm.sh/v3:Release") + program.of_type(":ConfigGroup") == []
    assert len(program.of_type(":RayService")) == 1


def test_a_context_and_a_kubeconfig_that_a_stack_names_are_used(record_file):
    program = record_file(
        """
cluster: {mode: existing, context: my-context, kubeconfig: /tmp/my-kubeconfig}
services:
  qwen: {model: Qwen/Qwen3.5-4B, accelerator: l4}
"""
    )
    provider = program.of_type("pulumi:providers:kubernetes")[0].inputs
    assert (provider["context"], provider["kubeconfig"]) == ("my-context", "/tmp/my-kubeconfig")


def ray_addon(program: Program) -> bool:
    cluster = program.of_type("cluster:Cluster")[0]
    addons = cluster.inputs.get("addonsConfig", {}).get("rayOperatorConfigs", [])
    return any(addon["enabled"] for addon in addons)


def test_gkes_ray_operator_takes_the_place_of_ours_and_never_stands_beside_it(record_file, google):
    ours, theirs = google, record_file(SPOT + "kuberay: {source: gke-addon}\n")
    assert ours.of_type("helm.sh/v3:Release")
    assert not ray_addon(ours)
    assert ray_addon(theirs)
    assert theirs.of_type("helm.sh/v3:Release") + theirs.of_type(":ConfigGroup") == []


def test_an_operator_that_somebody_installed_is_left_alone(record_file):
    program = record_file(SPOT + "kuberay: {source: preinstalled}\n")
    assert not ray_addon(program)
    assert program.of_type("helm.sh/v3:Release") + program.of_type(":ConfigGroup") == []


def test_a_chart_folder_on_this_machine_is_used_with_its_own_crds(record_file):
    program = record_file(SPOT + "kuberay: {chart: ./charts/kuberay-operator}\n")
    release = program.of_type("helm.sh/v3:Release")[0].inputs
    assert release["chart"] == "./charts/kuberay-operator"
    assert not {"version", "repositoryOpts"} & set(release)
    files = program.of_type(":ConfigGroup")[0].inputs["files"]
    assert files[0] == "charts/kuberay-operator/crds/ray.io_rayclusters.yaml"


# --- secrets

TOKEN = "hf_this-is-the-token"


def with_token(record_config: str) -> Program:
    """Recorded with the token as an engine hands it over: in clear, and known to be secret."""
    flat = {}
    for key, value in yaml.safe_load(record_config).items():
        flat[key if ":" in key else f"rayline:{key}"] = value if isinstance(value, str) else json.dumps(value)
    return offline.record("test", config=(flat | {"rayline:hugging_face_token": TOKEN}, ["rayline:hugging_face_token"]))


def places_of(value: object, wanted: str, path: str = "") -> list[str]:
    if isinstance(value, dict):
        return [place for key, item in value.items() for place in places_of(item, wanted, f"{path}.{key}")]
    if isinstance(value, (list, tuple)):
        return [place for item in value for place in places_of(item, wanted, f"{path}[]")]
    return [path] if wanted in str(value) else []


def test_the_hugging_face_token_is_a_secret_and_is_nowhere_else():
    program = with_token(SPOT + "hugging_face: {source: pulumi-secret}\n")
    secret = next(s for s in program.of_type("core/v1:Secret") if s.inputs["metadata"]["name"] == "hf-secret")
    assert secret.inputs["stringData"] == {"hf_api_token": MASK}
    assert secret.urn in needs(program, program.of_type(":RayService")[0])
    for resource in program.resources:
        assert places_of(resource.inputs, TOKEN) == [], resource.name
    masked = {
        (resource.name, place)
        for resource in program.resources
        for place in places_of(resource.inputs, MASK)
        if "hugging-face" in resource.name
    }
    assert masked == {(secret.name, ".stringData.hf_api_token")}


def test_a_secret_that_exists_is_referred_to_and_not_made(record_file):
    program = record_file(SPOT + "hugging_face: {source: existing-secret, secret_name: my-token}\n")
    names = {secret.inputs["metadata"]["name"] for secret in program.of_type("core/v1:Secret")}
    assert names == {"qwen-ray-auth", "qwen-api-key"}
    assert "my-token" in json.dumps(program.of_type(":RayService")[0].inputs)


SECRET_MANAGER = SPOT + "hugging_face: {source: secret-manager, secret: SECRET}\n"


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("hf", "projects/my-project/secrets/hf/versions/latest"),
        ("projects/other-project/secrets/hf", "projects/other-project/secrets/hf/versions/latest"),
        ("projects/other-project/secrets/hf/versions/7", "projects/other-project/secrets/hf/versions/7"),
    ],
)
def test_a_token_of_secret_manager_is_a_file_in_the_pods_and_nowhere_else(record_file, said, meant):
    program = record_file(SECRET_MANAGER.replace("SECRET", said))
    [provider_class] = program.of_type(":SecretProviderClass")
    assert provider_class.type == "kubernetes:secrets-store.csi.x-k8s.io/v1:SecretProviderClass"
    assert provider_class.inputs["spec"]["provider"] == "gke"
    [entry] = yaml.safe_load(provider_class.inputs["spec"]["parameters"]["secrets"])
    assert entry["resourceName"] == meant

    [service] = program.of_type(":RayService")
    assert provider_class.urn in needs(program, service)
    cluster = service.inputs["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        volume = next(one for one in pod["volumes"] if "csi" in one)
        assert volume["csi"]["driver"] == "secrets-store-gke.csi.k8s.io"
        assert volume["csi"]["volumeAttributes"] == {"secretProviderClass": provider_class.inputs["metadata"]["name"]}
        container = pod["containers"][0]
        mount = next(one for one in container["volumeMounts"] if one["name"] == volume["name"])
        variables = {one["name"]: one.get("value") for one in container["env"]}
        assert variables["HF_TOKEN_PATH"] == f"{mount['mountPath']}/{entry['path']}"
        assert "HF_TOKEN" not in variables
    assert not [one for one in program.of_type(":Secret") if "hf" in one.inputs["metadata"]["name"]]


def test_the_pods_of_a_service_may_read_this_one_secret_and_the_cluster_has_the_add_on(record_file):
    program = record_file(SECRET_MANAGER.replace("SECRET", "projects/other-project/secrets/hf"))
    members = program.of_type(":SecretIamMember")
    accounts = {
        group["template"]["spec"]["serviceAccountName"]
        for service in program.of_type(":RayService")
        for cluster in [service.inputs["spec"]["rayClusterConfig"]]
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
    }
    assert {one.inputs["member"].rpartition("/sa/")[2] for one in members} == accounts
    for one in members:
        assert one.inputs["role"] == "roles/secretmanager.secretAccessor"
        assert (one.inputs["project"], one.inputs["secretId"]) == ("other-project", "hf")
        # the pool is the cluster's project's, whatever project the secret is in
        assert "workloadIdentityPools/my-project.svc.id.goog/subject/ns/rayline/sa/" in one.inputs["member"]
    [cluster] = program.of_type("container/cluster:Cluster")
    assert cluster.inputs["secretManagerConfig"] == {"enabled": True}
    assert "secretManagerConfig" not in record_file(SPOT).of_type("container/cluster:Cluster")[0].inputs


def test_every_secret_of_a_service_holds_a_random_value_that_no_input_shows(program):
    for service in program.plan.services:
        secrets = {
            s.inputs["metadata"]["name"]: s.inputs["stringData"]
            for s in program.of_type("core/v1:Secret")
            if s.inputs["metadata"]["name"].startswith(f"{service.name}-")
        }
        assert secrets == {
            f"{service.name}-ray-auth": {"auth_token": MASK},
            f"{service.name}-api-key": {"api_key": MASK, "previous_api_key": MASK},
        }


def passwords(program: Program) -> set[str]:
    return {one.name.removeprefix("test-qwen-") for one in program.of_type(":RandomPassword")}


@pytest.mark.parametrize(
    ("generation", "expected"), [(1, {"api-key"}), (2, {"api-key", "api-key-2"}), (3, {"api-key-2", "api-key-3"})]
)
def test_a_raised_generation_makes_one_key_and_keeps_the_one_before(record_file, generation, expected):
    program = record_file(spot_with(f"api: {{key_generation: {generation}}}"))
    assert passwords(program) - {"ray-auth"} == expected
    # one Secret, whatever the generation: pods mount it by its name
    secret = program.named("test-qwen-api-key", ":Secret")
    assert secret.inputs["metadata"]["name"] == "qwen-api-key"
    assert secret.inputs["stringData"] == {"api_key": MASK, "previous_api_key": MASK}


def test_a_changed_secret_is_updated_and_never_missing(program):
    for provider in program.of_type("pulumi:providers:kubernetes"):
        assert provider.inputs["enableSecretMutable"] in (True, "true")


def test_a_new_ray_token_leaves_the_one_before_in_place(record_file):
    program = record_file(spot_with("rollout: {ray_token_generation: 2}"))
    before = record_file(SPOT)
    for name in ("test-qwen-ray-auth",):
        assert program.named(name, ":Secret").inputs == before.named(name, ":Secret").inputs
    assert program.named("test-qwen-ray-auth-2", ":Secret").urn in needs(program, program.of_type(":RayService")[0])


def test_a_service_that_asks_for_no_key_has_none(record_file):
    program = record_file(spot_with("api: {key: false}"))
    assert [s.inputs["metadata"]["name"] for s in program.of_type("core/v1:Secret")] == ["qwen-ray-auth"]


# --- change


@pytest.mark.parametrize(
    "added",
    [
        "model: Qwen/Qwen3.5-4B, accelerator: l4, nodes: {capacity: spot}",
        "model: google/gemma-4-E2B-it, accelerator: b200, nodes: {capacity: spot}",
        "model: Qwen/Qwen3.5-4B, accelerator: l4, nodes: {zones: [us-central1-b]}",
    ],
)
@pytest.mark.parametrize("name", ["a-first", "z-last"])
def test_a_service_that_is_added_neither_renames_nor_moves_what_is_there(record_file, added, name):
    before = record_file(SPOT)
    after = record_file(SPOT + f"  {name}: {{{added}}}\n")
    # a URN holds the type, the parents' types and the name: another one would be a replacement
    assert urns(before.resources) < urns(after.resources)
    moved = {resource.urn: resource.parent for resource in after.resources}
    assert all(moved[resource.urn] == resource.parent for resource in before.resources)


def test_a_service_that_is_added_changes_no_manifest_of_another_in_its_own_pool(record_file):
    def qwen(program: Program) -> dict:
        return next(s.inputs["spec"] for s in program.of_type(":RayService") if s.inputs["metadata"]["name"] == "qwen")

    added = "  gemma: {model: google/gemma-4-E2B-it, accelerator: b200, nodes: {capacity: spot}}\n"
    assert qwen(record_file(SPOT)) == qwen(record_file(SPOT + added))
