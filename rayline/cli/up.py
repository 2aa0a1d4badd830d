"""`rayline up`."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .checking import check_cluster, complain, data, failed, show_checks, show_services
from .common import JsonOption, StackOption, app, command, console, errors, plain_errors, state_dir

if TYPE_CHECKING:
    from rayline.offline import Program


@app.command(epilog="Example: rayline up --stack local")
def up(
    stack: StackOption = "local",
    as_json: JsonOption = False,
    policy_config: Annotated[
        pathlib.Path | None,
        typer.Option(
            "--policy-config", exists=True, dir_okay=False, help="Settings of the policy pack (docs/policy.md)."
        ),
    ] = None,
) -> None:
    """Bring a stack up: on this machine for `cluster.mode: local`, else with `pulumi up`. Then verify it."""
    from components.facts.choices import ClusterMode
    from rayline import offline

    with plain_errors():
        program = offline.record(stack)
        if program.plan.cluster.mode is not ClusterMode.LOCAL:
            raise typer.Exit(_deploy(program, policy_config))
        running = _run_here(program)
    if as_json:
        import json

        print(json.dumps(data(running), indent=2, default=str))
        raise typer.Exit(1 if failed(running.checks) else 0)
    _show_running(stack, running)


def _run_here(program: Program) -> Any:
    from rayline import render
    from rayline.local.needs import check_installed

    check_installed()
    from rayline.local import runtime
    from rayline.local.report import terminal_report
    from rayline.local_secrets import stack_secrets

    folder = state_dir(program.stack)
    secrets = stack_secrets(program, folder)
    with terminal_report() as report:
        return runtime.up(render.ray_services(program)[0], state_dir=folder, secrets=secrets, report=report)


def _deploy(program: Program, policy_config: pathlib.Path | None) -> int:
    from rayline import deploy, plan_view

    missing = deploy.preflight(program)
    if missing:
        raise deploy.DeployError("\n  ".join(["this machine is not ready to deploy:", *missing]))
    console.print(plan_view.program_view(program, tree=False, plain=not console.is_terminal))
    policy = ["--policy-pack", deploy.POLICY_PACK]
    if policy_config:
        policy += ["--policy-pack-config", str(policy_config.resolve())]
    code = deploy.run_pulumi(["up", "--stack", program.stack, *policy])
    if code != 0:
        return code
    try:
        with deploy.cluster_access(program, None) as kubectl:
            return show_services(check_cluster(program, kubectl, wait=True))
    except KeyboardInterrupt:
        errors.print("interrupted: the deployment continues in the cluster. Check it with: ", end="")
        errors.print(f"{command()} verify --stack {program.stack}", markup=False)
        return 130


def _show_running(stack: str, running: Any) -> None:
    show_checks(running.checks)
    answer = running.answer
    console.print(f"\n[bold]Q[/] {answer.question}\n[bold]A[/] {answer.text.strip()}")
    console.print(
        f"[dim]first token after {answer.first_token_seconds * 1000:.0f} ms, {answer.tokens_per_second:.0f} tokens/s, "
        f"{answer.completion_tokens} tokens[/]"
    )
    state = "was running already" if running.already_running else f"ready in {running.seconds:.0f} s"
    console.print(f"\n[green]{state}[/]  {running.url}/v1  model {', '.join(running.model_ids)}")
    if running.needs_api_key:
        console.print("  key: ", end="")
        console.print(f"{command()} key --stack {stack}", markup=False, soft_wrap=True)
    for label, verb in (("check", "verify"), ("logs", "logs"), ("stop", "down")):
        console.print(f"  {label}: {command()} {verb} --stack {stack}", markup=False, soft_wrap=True)
    if code := complain(running.checks):
        raise typer.Exit(code)
