"""`rayline up`."""

from __future__ import annotations

import pathlib
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rayline_cli.errors import FailedError

from .checking import Checks, check_cluster, failed, show_checks, show_failed, show_services
from .common import (
    JsonOption,
    PolicyConfigOption,
    StackOption,
    YesOption,
    app,
    command,
    console,
    failure,
    print_error,
    print_json,
    print_line,
    state_dir,
)

if TYPE_CHECKING:
    from rayline_cli.offline import Program

_CHECK_FAILED = "a check failed: see services"


@app.command(epilog="Example: rayline up --stack local, or rayline up --stack prod-l4 --yes --json in a pipeline")
def up(
    stack: StackOption = "local",
    yes: YesOption = False,
    as_json: JsonOption = False,
    policy_config: PolicyConfigOption = None,
    without_services: Annotated[
        bool,
        typer.Option(
            "--without-services",
            help="Cluster, namespace and operator alone: before Secrets and claims that the services need are made in the namespace.",
        ),
    ] = False,
) -> None:
    """Bring a stack up: on this machine for `cluster.mode: local`, else with `pulumi up`. Then verify it.

    Exit codes: 0 it serves and no check failed, 1 it did not come up or a check failed, 2 the command or the configuration is
    wrong, 130 interrupted.
    """
    from rayline.facts.choices import ClusterMode
    from rayline_cli import offline

    program = offline.record(stack)
    if program.plan.cluster.mode is not ClusterMode.LOCAL:
        raise typer.Exit(_deploy(program, policy_config, yes=yes, as_json=as_json, services=not without_services))
    if without_services:
        raise typer.BadParameter("--without-services is for a cluster, and cluster.mode is local. Fix: leave it out")
    running = _run_here(program)
    raise typer.Exit((_print_running if as_json else _show_running)(program, running))


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


def _deploy(program: Program, policy_config: pathlib.Path | None, *, yes: bool, as_json: bool, services: bool) -> int:
    """Run `pulumi up` and the checks. Print the result, for a script as one object. Return the exit code."""
    from rayline_cli import deploy, plan_view
    from rayline_cli import policy_config as policy

    stack = program.stack
    deploy.need_yes("up", stack, yes=yes, as_json=as_json)
    if policy_config:
        policy.read_config(policy_config)
    terminal = deploy.is_terminal() and not as_json
    arguments = deploy.arguments("up", stack, yes=yes, policy_config=policy_config, terminal=terminal, services=services)
    done = deploy.Deployed(stack, "up", exit_code=1)
    checks: Checks = {}
    try:
        deploy.refuse_unready(program, services=services)
        if as_json:
            done = deploy.operate(arguments)
        else:
            console.print(plan_view.program_view(program, tree=False, plain=not console.is_terminal))
            done = replace(done, exit_code=deploy.run_pulumi(arguments))
        if done.exit_code == 0 and services:
            with deploy.cluster_access(program, None) as kubectl:
                checks = check_cluster(program, kubectl, wait=True)
            if any(failed(of_service) for of_service in checks.values()):
                done = replace(done, exit_code=1, errors=[_CHECK_FAILED])
    except (FailedError, KeyboardInterrupt) as error:
        going_on = "interrupted: the deployment continues in the cluster. Check it with: "
        code, message = 1, str(error)
        if isinstance(error, KeyboardInterrupt):
            code, message = 130, f"{going_on}{command()} verify --stack {stack}"
        print_error(message)
        done = replace(done, exit_code=code, errors=[message])
    if as_json:
        print_json({**vars(done), "services": checks})
    else:
        show_services(checks)
    return done.exit_code


def _print_running(program: Program, running: Any) -> int:
    """Print the session on this machine, with the keys that a stack in a cluster has. Return the exit code."""
    result = failure(1, _CHECK_FAILED) if failed(running.checks) else failure(0)
    facts = dict(vars(running))
    services = {program.plan.services[0].name: facts.pop("checks")}
    # ties a session to its caller, which is no data
    del facts["leash"]
    print_json({"stack": program.stack, "command": "up", **result, "services": services, **facts})
    return result["exit_code"]


def _show_running(program: Program, running: Any) -> int:
    """Print the session on this machine for a person. Return the exit code."""
    from rayline_cli.questions import PooledAnswer

    show_checks(running.checks)
    answer = running.answer
    console.print(f"\n[bold]Q[/] {answer.question}\n[bold]A[/] {answer.text.strip()}")
    console.print(
        f"[dim]answer after {answer.total_seconds * 1000:.0f} ms[/]"
        if isinstance(answer, PooledAnswer)
        else f"[dim]first token after {answer.first_token_seconds * 1000:.0f} ms, {answer.tokens_per_second:.0f} tokens/s, "
        f"{answer.completion_tokens} tokens[/]"
    )
    state = "was running already" if running.already_running else f"ready in {running.seconds:.0f} s"
    console.print(f"\n[green]{state}[/]", end="")
    for prefix, models in running.routes.items():
        print_line(f"  {running.url}{prefix}/v1  model {', '.join(models)}")
    commands = {"check": "verify", "logs": "logs", "stop": "down"}
    if running.needs_api_key:
        further = {f"key of {model.application}": f"key --service {model.label}" for model in program.plan.services[0].beside}
        commands = {"key": "key"} | further | commands
    for label, verb in commands.items():
        print_line(f"  {label}: {command()} {verb} --stack {program.stack}")
    return show_failed(running.checks)
