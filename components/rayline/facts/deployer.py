"""Permissions of a deployer: in Google Cloud by type of resource, in Kubernetes by kind.

Permissions are those that Google's REST reference names for the methods (iann0036/iam-dataset, gcp/map.json at 2073fa5) and
that Terraform's provider was seen to use (JamesWoolfenden/pike, src/mapping/google at 085701b). Each role holds all
permissions of its rows: read in iam-dataset's gcp/roles at 2073fa5, a copy of what Google's IAM API lists.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Needs:
    """A predefined role, and which of its permissions a deployer uses."""

    role: str
    permissions: tuple[str, ...]
    on: str = "project"
    """What the role is granted on: the resource's project, the stack's project, or what this input of the resource names."""


def _crud(prefix: str, *more: str) -> tuple[str, ...]:
    return tuple(f"{prefix}.{verb}" for verb in ("create", "delete", "get", *more))


NETWORK_ADMIN = "roles/compute.networkAdmin"
SECURITY_ADMIN = "roles/compute.securityAdmin"
COMPUTE_VIEWER = "roles/compute.viewer"
CONTAINER_ADMIN = "roles/container.admin"
ACCOUNT_ADMIN = "roles/iam.serviceAccountAdmin"
ACCOUNT_USER = "roles/iam.serviceAccountUser"
PROJECT_IAM_ADMIN = "roles/resourcemanager.projectIamAdmin"
CERTIFICATE_OWNER = "roles/certificatemanager.owner"
STORAGE_ADMIN = "roles/storage.admin"
BROWSER = "roles/browser"

_GLOBAL, _REGION = ("compute.globalOperations.get",), ("compute.regionOperations.get",)
# Terraform's provider reads the project of a service, and the program reads its number where it grants to a pod.
_PROJECT = Needs(BROWSER, ("resourcemanager.projects.get",), on="stack")
# "To set a service account on nodes, you must also have the Service Account User role" (IAM's text of container.admin).
_NODES = Needs(ACCOUNT_USER, ("iam.serviceAccounts.actAs",), on="nodeConfig.serviceAccount")

GOOGLE: dict[str, tuple[Needs, ...]] = {
    "gcp:compute/network:Network": (Needs(NETWORK_ADMIN, (*_crud("compute.networks", "update"), *_GLOBAL)),),
    "gcp:compute/subnetwork:Subnetwork": (
        Needs(
            NETWORK_ADMIN,
            (
                *_crud("compute.subnetworks", "update", "expandIpCidrRange", "setPrivateIpGoogleAccess"),
                "compute.networks.updatePolicy",
                *_REGION,
            ),
        ),
    ),
    "gcp:compute/router:Router": (
        Needs(NETWORK_ADMIN, (*_crud("compute.routers", "update"), "compute.networks.updatePolicy", *_REGION)),
    ),
    # a NAT is a part of its router
    "gcp:compute/routerNat:RouterNat": (Needs(NETWORK_ADMIN, ("compute.routers.get", "compute.routers.update", *_REGION)),),
    "gcp:compute/address:Address": (
        Needs(
            NETWORK_ADMIN,
            (*_crud("compute.addresses", "createInternal", "deleteInternal", "setLabels"), "compute.subnetworks.use", *_REGION),
        ),
    ),
    "gcp:compute/globalAddress:GlobalAddress": (
        Needs(NETWORK_ADMIN, (*_crud("compute.globalAddresses", "setLabels"), *_GLOBAL)),
    ),
    "gcp:compute/sSLPolicy:SSLPolicy": (Needs(NETWORK_ADMIN, (*_crud("compute.sslPolicies", "update"), *_GLOBAL)),),
    "gcp:compute/regionSslPolicy:RegionSslPolicy": (
        Needs(NETWORK_ADMIN, (*_crud("compute.regionSslPolicies", "update"), *_REGION)),
    ),
    "gcp:compute/securityPolicy:SecurityPolicy": (
        Needs(SECURITY_ADMIN, (*_crud("compute.securityPolicies", "setLabels", "update"), *_GLOBAL)),
    ),
    "gcp:container/cluster:Cluster": (
        # connect is for the control plane's DNS name
        Needs(CONTAINER_ADMIN, (*_crud("container.clusters", "connect", "update"), "container.operations.get")),
        _NODES,
    ),
    "gcp:container/nodePool:NodePool": (
        Needs(CONTAINER_ADMIN, ("container.clusters.get", "container.clusters.update", "container.operations.get")),
        # the provider counts the nodes of a pool by its groups
        Needs(COMPUTE_VIEWER, ("compute.instanceGroupManagers.list",)),
        _NODES,
    ),
    "gcp:serviceaccount/account:Account": (Needs(ACCOUNT_ADMIN, _crud("iam.serviceAccounts", "update")),),
    "gcp:projects/iAMMember:IAMMember": (
        Needs(PROJECT_IAM_ADMIN, ("resourcemanager.projects.getIamPolicy", "resourcemanager.projects.setIamPolicy")),
    ),
    # the stack never turns one off
    "gcp:projects/service:Service": (
        Needs(
            "roles/serviceusage.serviceUsageAdmin",
            (
                "serviceusage.operations.get",
                "serviceusage.services.enable",
                "serviceusage.services.get",
                "serviceusage.services.list",
            ),
        ),
        _PROJECT,
    ),
    "gcp:redis/instance:Instance": (
        Needs("roles/redis.admin", (*_crud("redis.instances", "getAuthString", "update"), "redis.operations.get")),
    ),
    # objects: a bucket of a stack without deletion protection goes with what is in it
    "gcp:storage/bucket:Bucket": (
        Needs(
            STORAGE_ADMIN,
            (
                *_crud("storage.buckets", "getIamPolicy", "setIamPolicy", "update"),
                "storage.objects.delete",
                "storage.objects.list",
            ),
        ),
    ),
    "gcp:storage/bucketIAMMember:BucketIAMMember": (
        Needs(STORAGE_ADMIN, ("storage.buckets.getIamPolicy", "storage.buckets.setIamPolicy"), on="bucket"),
        _PROJECT,
    ),
    "gcp:secretmanager/secretIamMember:SecretIamMember": (
        Needs(
            "roles/secretmanager.admin",
            ("secretmanager.secrets.getIamPolicy", "secretmanager.secrets.setIamPolicy"),
            on="secretId",
        ),
        _PROJECT,
    ),
    # its editor may delete nothing
    "gcp:certificatemanager/certificate:Certificate": (
        Needs(
            CERTIFICATE_OWNER,
            (
                *_crud("certificatemanager.certs", "update"),
                "certificatemanager.dnsauthorizations.use",
                "certificatemanager.operations.get",
            ),
        ),
    ),
    "gcp:certificatemanager/certificateMap:CertificateMap": (
        Needs(CERTIFICATE_OWNER, (*_crud("certificatemanager.certmaps", "update"), "certificatemanager.operations.get")),
    ),
    "gcp:certificatemanager/certificateMapEntry:CertificateMapEntry": (
        Needs(
            CERTIFICATE_OWNER,
            (
                *_crud("certificatemanager.certmapentries", "update"),
                "certificatemanager.certs.use",
                "certificatemanager.operations.get",
            ),
        ),
    ),
    "gcp:certificatemanager/dnsAuthorization:DnsAuthorization": (
        Needs(
            CERTIFICATE_OWNER, (*_crud("certificatemanager.dnsauthorizations", "update"), "certificatemanager.operations.get")
        ),
    ),
    "gcp:iap/webTypeComputeIamMember:WebTypeComputeIamMember": (
        Needs("roles/iap.admin", ("iap.webTypes.getIamPolicy", "iap.webTypes.setIamPolicy")),
    ),
}

# Roles whose permissions, as far as a deployer uses them, others hold as well: with one of those they are not needed.
HELD_BY = {COMPUTE_VIEWER: (NETWORK_ADMIN,), BROWSER: (CONTAINER_ADMIN, PROJECT_IAM_ADMIN, ACCOUNT_ADMIN)}

# Pulumi's state in a bucket: it reads, writes, lists and removes objects (pulumi pkg/backend/diy, by gocloud.dev/blob).
STATE = Needs("roles/storage.objectUser", _crud("storage.objects", "list", "update"))
# A key that encrypts the stack's secrets (secretsprovider: gcpkms://…).
SECRETS_KEY = Needs(
    "roles/cloudkms.cryptoKeyEncrypterDecrypter",
    ("cloudkms.cryptoKeyVersions.useToDecrypt", "cloudkms.cryptoKeyVersions.useToEncrypt"),
)

# A role with this condition grants and takes away the named roles only
# (cloud.google.com/iam/docs/setting-limits-on-granting-roles).
GRANTS_ONLY = "api.getAttribute('iam.googleapis.com/modifiedGrantsByRole', []).hasOnly([{roles}])"

# --- Kubernetes


@dataclass(frozen=True)
class Rule:
    """One rule of a Kubernetes Role."""

    group: str
    resource: str
    verbs: tuple[str, ...]


# Pulumi's Kubernetes provider reads, applies on the server's side and waits.
VERBS = ("create", "delete", "get", "list", "patch", "watch")

# What stands behind a resource that is no Kubernetes object itself. KubeRay's chart with `singleNamespaceInstall`: its templates
# at v1.7.0. Its Roles hold rights that a deployer may not have, hence escalate and bind. Helm keeps its releases in Secrets.
RELEASE = (
    Rule("", "secrets", (*VERBS, "update")),
    Rule("", "serviceaccounts", (*VERBS, "update")),
    Rule("", "services", (*VERBS, "update")),
    Rule("apps", "deployments", (*VERBS, "update")),
    # Helm waits for the Deployment by its ReplicaSets and pods
    Rule("apps", "replicasets", ("get", "list", "watch")),
    Rule("", "pods", ("get", "list", "watch")),
    Rule("rbac.authorization.k8s.io", "rolebindings", (*VERBS, "update")),
    Rule("rbac.authorization.k8s.io", "roles", (*VERBS, "bind", "escalate", "update")),
)
# What of KubeRay's chart lies in the namespace that it watches.
RELEASE_WATCHED = tuple(one for one in RELEASE if one.group == "rbac.authorization.k8s.io")
# A file of the group is one CustomResourceDefinition.
CONFIG_GROUP = (Rule("apiextensions.k8s.io", "customresourcedefinitions", VERBS),)
# A Job is waited for by its pods.
JOB = (Rule("", "pods", ("get", "list", "watch")),)
# `rayline verify` looks from inside the service's pods, and for what was changed beside the stack.
VERIFY = (
    Rule("", "pods", ("get", "list")),
    # kubectl asks with a GET that becomes a stream, for which newer API servers want create as well
    Rule("", "pods/exec", ("create", "get")),
    Rule("", "services", ("get", "list")),
    Rule("networking.k8s.io", "networkpolicies", ("get", "list")),
    Rule("ray.io", "rayservices", ("get", "list")),
)
