"""The Pulumi program: a stack's configuration becomes one InferencePlatform."""

import pulumi

from components import InferencePlatform
from components.facts.choices import ClusterMode, TokenSource
from rayline.offline import is_offline
from rayline.settings import TOKEN_KEY, SettingsError, read_program_settings

try:
    settings = read_program_settings()
except SettingsError as error:
    raise pulumi.RunError(f"the configuration of stack {pulumi.get_stack()} has mistakes:\n{error}") from None
if settings.cluster.mode is ClusterMode.LOCAL and not is_offline():
    raise pulumi.RunError(
        f"stack {pulumi.get_stack()} runs on this machine, not in a cluster: `rayline up --stack {pulumi.get_stack()}`"
    )

arguments = settings.arguments()
if settings.hugging_face.source is TokenSource.PULUMI_SECRET:
    token = pulumi.Config().get_secret(TOKEN_KEY)
    if token is not None:
        arguments["hugging_face"]["token"] = token

platform = InferencePlatform(pulumi.get_stack(), arguments)  # type: ignore[arg-type]  # a dict of the same shape

pulumi.export("endpoints", platform.endpoints)
pulumi.export("api_keys", platform.api_keys)
pulumi.export("cluster_name", platform.cluster_name)
pulumi.export("kubeconfig", platform.kubeconfig)
