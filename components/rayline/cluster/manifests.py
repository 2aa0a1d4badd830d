"""Kubeconfig of a GKE cluster. No Pulumi, no I/O."""

import json


def kubeconfig(cluster: str, endpoint: str, ca_certificate: str | None = None) -> str:
    """Return a kubeconfig (JSON) that takes its credentials from gke-gcloud-auth-plugin, as Pulumi's provider does.

    `ca_certificate` (base64) belongs to the IP endpoint; the DNS endpoint has a public certificate.
    """
    server: dict = {"server": f"https://{endpoint}"}
    if ca_certificate is not None:
        server["certificate-authority-data"] = ca_certificate
    credentials = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": "gke-gcloud-auth-plugin",
        # without it the plug-in uses gcloud, which may be logged in as another user, or not at all
        "args": ["--use_application_default_credentials"],
        "provideClusterInfo": True,
        "interactiveMode": "Never",
    }
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": cluster,
            "clusters": [{"name": cluster, "cluster": server}],
            "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": cluster}}],
            "users": [{"name": cluster, "user": {"exec": credentials}}],
        }
    )
