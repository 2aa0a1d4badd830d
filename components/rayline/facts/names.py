"""Make names of resources within the limits of Google's APIs.

Pulumi appends a dash and seven random characters to most names. A name that is too long gets a digest of the whole, so that two
names never become one, and each stays the same.
"""

import hashlib

PULUMI_SUFFIX = 8
# Clusters and node pools of GKE: 40 characters (container.googleapis.com, projects.locations.clusters).
GKE = 40 - PULUMI_SUFFIX
# Instances of Memorystore: 40 characters (redis.googleapis.com, projects.locations.instances.create).
MEMORYSTORE = 40 - PULUMI_SUFFIX
# The id of a service account: 30 characters, and Pulumi appends nothing (iam.googleapis.com, projects.serviceAccounts.create).
SERVICE_ACCOUNT = 30
# Compute Engine and Certificate Manager: 63 characters (RFC 1035), for names that the kit gives.
COMPUTE = 63
# A platform's name, which is the stack's. With the longest ending and Pulumi's it is 55 characters of a subnet's 63.
PLATFORM = 40

DIGEST = 4


def fitted(name: str, most: int, *, tail: str = "") -> str:
    """Return NAME or NAME-TAIL, of at most `most` characters. A longer name is cut and gets a digest of the whole."""
    whole = f"{name}-{tail}" if tail else name
    if len(whole) <= most:
        return whole
    end = "-".join(part for part in (tail, hashlib.sha256(whole.encode()).hexdigest()[:DIGEST]) if part)
    room = most - len(end) - 1
    if room < 1:
        raise ValueError(f"no name of {most} characters can end with {end}")
    return f"{name[:room].rstrip('-')}-{end}"
