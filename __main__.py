"""The Pulumi program: a stack's configuration becomes one InferencePlatform."""

from typing import Any

import pulumi

from rayline import InferencePlatform
from rayline.facts.choices import ClusterMode, TokenSource
from rayline.platform.plan import make_plan
from rayline.schema.check import PlanError
from rayline_cli.offline import is_offline
from rayline_cli.settings import TOKEN_KEY, SettingsError, read_program_settings


def with_token(arguments: dict[str, Any]) -> dict[str, Any]:
    """The token comes from Pulumi's configuration as a secret and passes no check on the way."""
    token = pulumi.Config().get_secret(TOKEN_KEY)
    if token is not None and arguments.get("hugging_face", {}).get("source") is TokenSource.PULUMI_SECRET:
        arguments["hugging_face"]["token"] = token
    return arguments


try:
    settings = read_program_settings()
except SettingsError as error:
    problems = list(error.problems)
    if error.rest is not None:
        try:
            make_plan(with_token(error.rest), name=pulumi.get_stack())
        except PlanError as more:
            problems += [str(problem) for problem in more.problems]
    mistakes = "\n".join(problems)
    raise pulumi.RunError(f"the configuration of stack {pulumi.get_stack()} has mistakes:\n{mistakes}") from None
if settings.cluster.mode is ClusterMode.LOCAL and not is_offline():
    raise pulumi.RunError(
        f"stack {pulumi.get_stack()} runs on this machine, not in a cluster: `rayline up --stack {pulumi.get_stack()}`"
    )

arguments = with_token(settings.arguments())
platform = InferencePlatform(pulumi.get_stack(), arguments)  # type: ignore[arg-type]  # a dict of the same shape

pulumi.export("endpoints", platform.endpoints)
pulumi.export("urls", platform.urls)
pulumi.export("endpoint_address", platform.endpoint_address)
pulumi.export("dns_records", platform.dns_records)
pulumi.export("api_keys", platform.api_keys)
pulumi.export("cluster_name", platform.cluster_name)
pulumi.export("kubeconfig", platform.kubeconfig)
