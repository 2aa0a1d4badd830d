"""`rayline up`."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rayline_cli.errors import FailedError

from .checking import check_cluster, complain, data, failed, show_checks, show_services
from .common import JsonOption, StackOption, YesOption, app, command, console, errors, failure, print_json, state_dir

if TYPE_CHECKING:
    from rayline_cli.offline import Program


@app.command(epilog="Example: rayline up --stack local, or rayline up --stack prod-l4 --yes --json in a pipeline")
def up(
    stack: StackOption = "local",
    yes: YesOption = False,
    as_json: JsonOption = False,
    policy_config: Annotated[
        pathlib.Path | None,
        typer.Option("--policy-config", exists=True, dir_okay=False, help="Settings of the policy pack (docs/policy.md)."),
    ] = None,
) -> None:
    """Bring a stack up: on this machine for `cluster.mode: local`, else with `pulumi up`. Then verify it.

    Exit codes: 0 it serves and no check failed, 1 it did not come up or a check failed, 2 the command or the configuration is
    wrong, 130 interrupted.
    """
    from rayline.facts.choices import ClusterMode
    from rayline_cli import offline

    program = offline.record(stack)
    if program.plan.cluster.mode is not ClusterMode.LOCAL:
        raise typer.Exit(_deploy(program, policy_config, yes=yes, as_json=as_json))
    running = _run_here(program)
    if as_json:
        raise typer.Exit(_print_running(program, running))
    _show_running(stack, running)


def _run_here(program: Program) -> Any:
    from rayline_cli import render
    from rayline_cli.local.needs import check_installed

    check_installed()
    from rayline_cli.local import runtime
    from rayline_cli.local_secrets import stack_secrets
    from rayline_cli.progress import terminal_report

    folder = state_dir(program.stack)
    secrets = stack_secrets(program, folder)
    with terminal_report() as report:
        return runtime.up(render.ray_services(program)[0], state_dir=folder, secrets=secrets, report=report)


def _deploy(program: Program, policy_config: pathlib.Path | None, *, yes: bool, as_json: bool) -> int:
    """Run `pulumi up` and the checks. Return the exit code."""
    from rayline_cli import deploy, plan_view
    from rayline_cli import policy_config as policy

    deploy.need_yes("up", program.stack, yes=yes, as_json=as_json)
    if policy_config:
        policy.refuse_unknown(policy_config)
    if as_json:
        return _deploy_for_a_script(program, policy_config)
    deploy.refuse_unready(program)
    arguments = deploy.arguments("up", program.stack, yes=yes, policy_config=policy_config, terminal=deploy.is_terminal())
    console.print(plan_view.program_view(program, tree=False, plain=not console.is_terminal))
    code = deploy.run_pulumi(arguments)
    if code != 0:
        return code
    try:
        with deploy.cluster_access(program, None) as kubectl:
            return show_services(check_cluster(program, kubectl, wait=True))
    except KeyboardInterrupt:
        errors.print("interrupted: the deployment continues in the cluster. Check it with: ", end="")
        errors.print(f"{command()} verify --stack {program.stack}", markup=False)
        return 130


def _deploy_for_a_script(program: Program, policy_config: pathlib.Path | None) -> int:
    """Run `pulumi up` and the checks without asking, and print one object at the end. Return the exit code."""
    import dataclasses

    from rayline_cli import deploy

    stack = program.stack
    done = deploy.Deployed(stack=stack, command="up", exit_code=1)
    services: dict[str, Any] = {}
    try:
        deploy.refuse_unready(program)
        done = deploy.operate(deploy.arguments("up", stack, yes=True, policy_config=policy_config, terminal=False))
        if done.exit_code == 0:
            with deploy.cluster_access(program, None) as kubectl:
                services = check_cluster(program, kubectl, wait=True)
            if any(failed(checks) for checks in services.values()):
                done = dataclasses.replace(done, exit_code=1, errors=[_CHECK_FAILED])
    except FailedError as error:
        done = dataclasses.replace(done, exit_code=1, errors=[str(error)])
    except KeyboardInterrupt:
        said = f"interrupted: the deployment continues in the cluster. Check it with: rayline verify --stack {stack}"
        done = dataclasses.replace(done, exit_code=130, errors=[said])
    print_json(data(done) | {"services": data(services)})
    return done.exit_code


_CHECK_FAILED = "a check failed: see services"


def _print_running(program: Program, running: Any) -> int:
    """Print what runs on this machine, with the keys that a stack in a cluster has. Return the exit code."""
    wrong = failed(running.checks)
    said = failure(1, _CHECK_FAILED) if wrong else failure(0)
    facts = data(running)
    services = {program.plan.services[0].name: facts.pop("checks")}
    # what holds a session to its caller is no data
    del facts["leash"]
    print_json({"stack": program.stack, "command": "up", **said, "services": services, **facts})
    return said["exit_code"]


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
