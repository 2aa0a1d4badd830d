"""Which changes replace a resource. The wheels do not carry it, so these rows do, for what a stack declares today.

Google: `ForceNew` in terraform-provider-google-beta 8.0.0, the provider that pulumi-gcp 10.2.0 bridges:
google-beta/services/container/{resource_container_cluster,resource_container_node_pool,node_config}.go,
compute/resource_compute_*.go, redis/resource_redis_instance.go, storage/resource_storage_bucket.go,
resourcemanager/resource_google_{service_account,project_service}.go. Machine types, disks, labels and taints are changed in
place there. A Google type without a row here is taken to be replaced by the inputs in `ANY_GOOGLE`, which all of these have.

Kubernetes: `forceNew` in pulumi-kubernetes, provider/pkg/provider/diff.go.

Random: every input of a random resource (hashicorp/random, RequiresReplace on each).
"""

ANY_GOOGLE = ("name", "project", "location", "region", "zone")

# A row is a property, or a block in which every field replaces.
_GOOGLE = {
    "gcp:compute/globalAddress:GlobalAddress": (
        "address",
        "addressType",
        "description",
        "ipVersion",
        "network",
        "prefixLength",
        "purpose",
    ),
    "gcp:compute/network:Network": ("autoCreateSubnetworks", "description", "internalIpv6Range", "networkProfile"),
    "gcp:compute/router:Router": ("encryptedInterconnectRouter", "network"),
    "gcp:compute/routerNat:RouterNat": ("endpointTypes", "initialNatIps", "router", "type"),
    "gcp:compute/securityPolicy:SecurityPolicy": ("type",),
    "gcp:compute/subnetwork:Subnetwork": ("description", "network", "reservedInternalRange"),
    "gcp:container/cluster:Cluster": (
        "clusterIpv4Cidr",
        "confidentialNodes",
        "datapathProvider",
        "dataplaneOptimizationMode",
        "defaultMaxPodsPerNode",
        "description",
        "enableAutopilot",
        "enableKubernetesAlpha",
        "initialNodeCount",
        "ipAllocationPolicy.clusterIpv4CidrBlock",
        "ipAllocationPolicy.clusterSecondaryRangeName",
        "ipAllocationPolicy.podCidrOverprovisionConfig",
        "ipAllocationPolicy.servicesIpv4CidrBlock",
        "ipAllocationPolicy.servicesSecondaryRangeName",
        "masterAuth.clientCertificateConfig",
        "network",
        "networkingMode",
        "nodePools",
        "privateClusterConfig.masterIpv4CidrBlock",
        "privateClusterConfig.privateEndpointSubnetwork",
        "subnetwork",
    ),
    "gcp:container/nodePool:NodePool": (
        "cluster",
        "initialNodeCount",
        "maxPodsPerNode",
        "namePrefix",
        "networkConfig.acceleratorNetworkProfile",
        "networkConfig.additionalNodeNetworkConfigs",
        "networkConfig.additionalPodNetworkConfigs",
        "networkConfig.createPodRange",
        "networkConfig.podCidrOverprovisionConfig",
        "networkConfig.podIpv4CidrBlock",
        "networkConfig.podRange",
        "networkConfig.subnetwork",
        "nodeConfig.advancedMachineFeatures",
        "nodeConfig.bootDiskKmsKey",
        "nodeConfig.enableConfidentialStorage",
        "nodeConfig.ephemeralStorageConfig",
        "nodeConfig.ephemeralStorageLocalSsdConfig",
        "nodeConfig.flexStart",
        "nodeConfig.guestAccelerators",
        "nodeConfig.hostMaintenancePolicy",
        "nodeConfig.localNvmeSsdBlockConfig",
        "nodeConfig.localSsdCount",
        "nodeConfig.localSsdEncryptionMode",
        "nodeConfig.maxRunDuration",
        "nodeConfig.metadata",
        "nodeConfig.minCpuPlatform",
        "nodeConfig.nodeGroup",
        "nodeConfig.oauthScopes",
        "nodeConfig.preemptible",
        "nodeConfig.reservationAffinity",
        "nodeConfig.sandboxConfig",
        "nodeConfig.secondaryBootDisks",
        "nodeConfig.serviceAccount",
        "nodeConfig.shieldedInstanceConfig",
        "nodeConfig.soleTenantConfig",
        "nodeConfig.spot",
        "placementPolicy.policyName",
        "queuedProvisioning",
    ),
    "gcp:projects/iAMMember:IAMMember": ("condition", "member", "role"),
    "gcp:projects/service:Service": ("service",),
    "gcp:redis/instance:Instance": (
        "alternativeLocationId",
        "authorizedNetwork",
        "connectMode",
        "customerManagedKey",
        "locationId",
        "reservedIpRange",
        "tier",
        "transitEncryptionMode",
    ),
    "gcp:serviceaccount/account:Account": ("accountId",),
    "gcp:storage/bucket:Bucket": ("customPlacementConfig", "enableObjectRetention", "hierarchicalNamespace"),
}

_ANY_KUBERNETES = ("apiVersion", "kind", "metadata.name", "metadata.namespace")
_SELECTOR = ("spec.selector",)
_ROLE = ("roleRef",)
_KUBERNETES = {
    "kubernetes:apps/v1:DaemonSet": _SELECTOR,
    "kubernetes:apps/v1:Deployment": _SELECTOR,
    "kubernetes:apps/v1:StatefulSet": (
        *_SELECTOR,
        "spec.podManagementPolicy",
        "spec.revisionHistoryLimit",
        "spec.serviceName",
        "spec.volumeClaimTemplates",
    ),
    "kubernetes:batch/v1:Job": ("spec.completions", "spec.parallelism", "spec.selector", "spec.template"),
    # the provider's default; enableConfigMapMutable and enableSecretMutable change it
    "kubernetes:core/v1:ConfigMap": ("binaryData", "data"),
    "kubernetes:core/v1:Secret": ("type", "stringData", "data"),
    "kubernetes:core/v1:PersistentVolumeClaim": (
        "spec.accessModes",
        "spec.selector",
        "spec.storageClassName",
        "spec.volumeName",
    ),
    "kubernetes:core/v1:ResourceQuota": ("spec.scopes",),
    "kubernetes:core/v1:Service": ("spec.clusterIP",),
    "kubernetes:rbac.authorization.k8s.io/v1:ClusterRoleBinding": _ROLE,
    "kubernetes:rbac.authorization.k8s.io/v1:RoleBinding": _ROLE,
    "kubernetes:storage.k8s.io/v1:StorageClass": ("parameters", "provisioner"),
}


# The types with rows of their own, and one of each kind that has the same rows for all its types.
TYPES = (*_GOOGLE, *_KUBERNETES, "kubernetes:helm.sh/v3:Release", "random:index/randomPassword:RandomPassword")


def replaces(token: str, path: str) -> bool:
    """Whether a change of the leaf `path` (names on the wire joined by dots, no list indexes) replaces a resource."""
    if token.startswith("random:"):
        return True
    if token == "kubernetes:helm.sh/v3:Release":
        rows: tuple[str, ...] = ("name", "namespace")
    elif token.startswith("kubernetes:"):
        rows = _ANY_KUBERNETES + _KUBERNETES.get(token, ())
    else:
        rows = ANY_GOOGLE + _GOOGLE.get(token, ())
    return any(path == row or path.startswith(f"{row}.") for row in rows)
