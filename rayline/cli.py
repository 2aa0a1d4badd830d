"""The command line. Exit codes: 0 it worked, 1 it did not, 2 the command or the configuration is wrong, 130 interrupted."""

import dataclasses
import json
import os
import pathlib
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Annotated, Any

import typer
from rich.console import Console

from components.api_key_manifests import API_KEY_KEY, PREVIOUS_API_KEY_KEY, api_key_secret
from components.facts.choices import ClusterMode

from . import deploy, offline, plan_view, render
from .local_secrets import secret_values
from .verify import Check, NotSeen, Outcome, check_switches, expected, summary
from .verify.cluster import ClusterTarget, NotServed, wait_until_served
from .verify.outside import KEY_VARIABLE, BadUrl, UrlTarget

app = typer.Typer(
    name="rayline",
    help="Ray Serve LLM in high-throughput mode: plan, render, run here, deploy to GKE.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=200)
errors = Console(stderr=True, highlight=False)


def _print_version(asked: bool) -> None:
    if asked:
        import importlib.metadata

        print(f"rayline {importlib.metadata.version('rayline-kit')}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


StackOption = Annotated[str, typer.Option("--stack", "-s", help="Stack: a file stacks/Pulumi.<stack>.yaml.")]
ConfigFileOption = Annotated[
    pathlib.Path | None,
    typer.Option("--config-file", exists=True, dir_okay=False, help="The stack's file, if it lies elsewhere."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print data for a machine instead of text for a person.")]

STATE = offline.PROJECT_ROOT / ".rayline"


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Mistakes become one message and an exit code, never a traceback."""
    from .bench.errors import BenchError, BenchUsageError
    from .local.runtime import LocalRuntimeError

    try:
        yield
    except (offline.UnknownStack, offline.ProgramError, BenchUsageError, BadUrl) as error:
        # the message may hold brackets, which are no markup
        errors.print("[red]error:[/]", end=" ")
        errors.print(str(error), markup=False, soft_wrap=True)
        raise typer.Exit(2) from None
    except (LocalRuntimeError, deploy.DeployError, BenchError, NotServed, NotSeen) as error:
        errors.print("[red]error:[/]", end=" ")
        errors.print(str(error), markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        errors.print("interrupted: nothing that this call started was left running")
        raise typer.Exit(130) from None


def _state_dir(stack: str) -> pathlib.Path:
    return STATE / "local" / stack


@app.command(epilog="Example: rayline plan --stack dev-l4")
def plan(
    stack: Annotated[str | None, typer.Option("--stack", "-s", help="One stack; without it, all of them.")] = None,
    as_json: JsonOption = False,
    tree: Annotated[bool, typer.Option(help="Show the tree of resources.")] = True,
) -> None:
    """Show what a stack would create: services, hardware, memory fit, concurrency, cost. Creates nothing."""
    with _plain_errors():
        programs = [offline.record(name) for name in ([stack] if stack else offline.stack_names())]
    if as_json:
        print(json.dumps([plan_view.program_json(program) for program in programs], indent=2))
        return
    for program in programs:
        console.print(plan_view.program_view(program, tree=tree and stack is not None, plain=not console.is_terminal))


@app.command(name="render", epilog="Example: rayline render --stack dev-l4")
def render_manifests(
    stack: Annotated[str | None, typer.Option("--stack", "-s", help="One stack; without it, all of them.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 where manifests/ is stale.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write manifests/<stack>/: what `kubectl apply` takes and what a review reads. Secrets' values are not in it."""
    with _plain_errors():
        programs = [offline.record(name) for name in ([stack] if stack else offline.stack_names())]
    if check:
        found = {program.stack: render.stale(program) for program in programs}
    else:
        found = {program.stack: [path.name for path in render.write(program)] for program in programs}
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        for name, files in found.items():
            word = "stale" if check else "written"
            console.print(f"manifests/{name}: " + (f"{word}: {', '.join(files)}" if files else "up to date"))
    if check and any(found.values()):
        errors.print("run `make render` and commit the result")
        raise typer.Exit(1)


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
    """Bring a stack up: on this machine for `cluster.mode: local`, else with `pulumi up`."""
    with _plain_errors():
        program = offline.record(stack)
        if program.plan.cluster.mode is not ClusterMode.LOCAL:
            raise typer.Exit(_deploy(program, policy_config))
        from .local import runtime
        from .local.report import terminal_report

        state_dir = _state_dir(stack)
        values = _secret_values(program)
        with terminal_report() as report:
            running = runtime.up(render.ray_services(program)[0], state_dir=state_dir, secrets=values, report=report)
    if as_json:
        print(json.dumps(_data(running), indent=2, default=str))
        raise typer.Exit(1 if _failed(running) else 0)
    _show_running(stack, running)


def _deploy(program: offline.Program, policy_config: pathlib.Path | None) -> int:
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
            return _show_checked(_check_cluster(program, kubectl, wait=True))
    except KeyboardInterrupt:
        errors.print("interrupted: the cluster goes on with what it was told; later: ", end="")
        errors.print(f"{_command()} verify --stack {program.stack}", markup=False)
        return 130


def _check_cluster(
    program: offline.Program, kubectl: Any, *, service: str | None = None, all_on: bool = False, wait: bool = False
) -> dict[str, list[Check]]:
    """The checks of each service of the stack. With `wait` they are made when what is declared is served."""
    from .local.report import terminal_report

    manifests = {manifest["metadata"]["name"]: manifest for manifest in render.ray_services(program)}
    policies = render.network_policies(program)
    found = {}
    with terminal_report() as report:
        for plan in program.plan.services:
            if service not in (None, plan.name):
                continue
            if plan.parked:
                found[plan.name] = [Check("parked", Outcome.NOT_APPLICABLE, "the service is parked: nothing runs")]
                continue
            manifest = manifests[plan.name]
            if wait:
                wait_until_served(kubectl, manifest, report, plan.start_timeout_seconds)
            report.phase(plan.name, "looking into its pods")
            wanted = expected(manifest)
            target = ClusterTarget(kubectl, wanted.all_on() if all_on else wanted, policies)
            started = time.monotonic()
            found[plan.name] = check_switches(target)
            report.done(plan.name, time.monotonic() - started, summary(found[plan.name]))
    return found


def _show_checked(found: dict[str, list[Check]]) -> int:
    """Prints the checks of each service; the exit code."""
    failed = 0
    for name, checks in found.items():
        console.print(f"\n[bold]{name}[/]")
        _show_checks(checks)
        console.print(f"[dim]{summary(checks)}[/]")
        failed += sum(check.outcome is Outcome.FAIL for check in checks)
    if failed:
        errors.print(f"[red]{failed} of {sum(map(len, found.values()))} checks failed[/]")
    return 1 if failed else 0


_MARKS = {
    Outcome.PASS: "[green]pass[/]",
    Outcome.FAIL: "[red]FAIL[/]",
    Outcome.OFF: "[yellow]off [/]",
    Outcome.NOT_APPLICABLE: "[dim]n/a [/]",
}


def _show_checks(checks: Sequence[Check]) -> None:
    for check in checks:
        console.print(f"{_MARKS[check.outcome]}  {check.name}: ", end="", markup=True)
        console.print(check.evidence, markup=False, soft_wrap=True)
        if check.fix:
            console.print(f"      {check.fix}", markup=False, soft_wrap=True)


@app.command(
    epilog="Example: rayline verify --stack local, or RAYLINE_API_KEY=KEY rayline verify --url https://llm.example.com"
)
def verify(
    stack: Annotated[
        str | None, typer.Option("--stack", "-s", help="Stack: a file stacks/Pulumi.<stack>.yaml (default: local).")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option("--url", help="Instead of a stack: an address, looked at as a client, key in $RAYLINE_API_KEY."),
    ] = None,
    service: Annotated[str | None, typer.Option("--service", help="One service of the stack; without it, all.")] = None,
    context: Annotated[
        str | None, typer.Option("--context", help="kubectl context (default: the stack's own cluster).")
    ] = None,
    config_file: ConfigFileOption = None,
    all_on: Annotated[
        bool, typer.Option("--all-on", help="Expect every switch on, also those that the stack file turns off.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Look at each switch on the running system: HAProxy and direct streaming by their effect, the throughput settings as Ray reads
    them in each process, vLLM's Ray executor on GPUs (n/a on a CPU). Also the key, the model list, and who can connect.

    A switch that the stack file turns off is reported as off, unless --all-on says that it must be on.
    Exit codes: 0 nothing failed, 1 something did, 2 the command or the configuration is wrong.
    """
    if url and (stack or service or context or config_file):
        raise typer.BadParameter("--url knows no stack: leave out --stack, --service, --context and --config-file")
    stack = stack or "local"
    with _plain_errors():
        if url:
            target = UrlTarget(url, os.environ.get(KEY_VARIABLE))
            target.reach()
            found = {target.expected.service: check_switches(target)}
        else:
            program = offline.record(stack, config=offline.read_stack(stack, file=config_file))
            _known_service(program, service)
            if program.plan.cluster.mode is ClusterMode.LOCAL:
                if context:
                    raise typer.BadParameter(f"stack {stack} runs on this machine: --context is for a cluster")
                found = _check_here(program, all_on)
            else:
                with deploy.cluster_access(program, context) as kubectl:
                    found = _check_cluster(program, kubectl, service=service, all_on=all_on)
    if as_json:
        passed = all(check.outcome is not Outcome.FAIL for checks in found.values() for check in checks)
        print(json.dumps({"target": url or f"stack {stack}", "passed": passed, "services": _data(found)}, indent=2))
        raise typer.Exit(0 if passed else 1)
    raise typer.Exit(_show_checked(found))


def _known_service(program: offline.Program, service: str | None) -> None:
    names = [plan.name for plan in program.plan.services]
    if service is not None and service not in names:
        raise typer.BadParameter(f"--service {service}: the stack {program.stack} has {', '.join(names)}")


def _check_here(program: offline.Program, all_on: bool) -> dict[str, list[Check]]:
    from .local import runtime, session

    # before secret_values, which would make a folder
    if session.load(_state_dir(program.stack)) is None:
        raise runtime.LocalRuntimeError(
            f"nothing runs for stack {program.stack}: {_command()} up --stack {program.stack}"
        )
    target = runtime.target(
        render.ray_services(program)[0], state_dir=_state_dir(program.stack), secrets=_secret_values(program)
    )
    if all_on:
        target.expected = target.expected.all_on()
    return {target.expected.service: check_switches(target)}


def _show_running(stack: str, running: Any) -> None:
    failed = _failed(running)
    _show_checks(running.checks)
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
        console.print(f"{_command()} key --stack {stack}", markup=False, soft_wrap=True)
    for label, verb in (("check", "verify"), ("logs", "logs"), ("stop", "down")):
        console.print(f"  {label}: {_command()} {verb} --stack {stack}", markup=False, soft_wrap=True)
    if failed:
        errors.print(f"[red]{len(failed)} of {len(running.checks)} checks failed[/]")
        raise typer.Exit(1)


def _failed(running: Any) -> list[Check]:
    return [check for check in running.checks if check.outcome is Outcome.FAIL]


def _command() -> str:
    """This command as the person can type it: by its name where that is on PATH, else by its place."""
    here = pathlib.Path(sys.argv[0])
    found = shutil.which(here.name)
    return here.name if found and pathlib.Path(found).samefile(here) else os.path.relpath(here)


@app.command(epilog="Example: rayline down --stack local")
def down(stack: StackOption = "local", as_json: JsonOption = False) -> None:
    """Stop what `up` started: this machine's session, or the cloud stack with `pulumi destroy`."""
    from .local import runtime
    from .local.report import terminal_report

    with _plain_errors():
        # the session's own state decides, so that a stack file that no longer parses can still be stopped
        if not _state_dir(stack).exists():
            program = offline.record(stack)
            if program.plan.cluster.mode is not ClusterMode.LOCAL:
                raise typer.Exit(deploy.run_pulumi(["destroy", "--stack", stack]))
        with terminal_report() as report:
            stopped = runtime.down(_state_dir(stack), report)
    if as_json:
        print(json.dumps({"stack": stack, "stopped": stopped}))
    elif not stopped:
        console.print("nothing was running")


@app.command(epilog="Example: rayline status --stack local --json")
def status(stack: StackOption = "local", as_json: JsonOption = False) -> None:
    """Show replicas, HAProxy and address of what runs on this machine. Exit code 1 when it is not serving."""
    from .local import runtime

    with _plain_errors():
        _only_here(stack)
        found = runtime.status(_state_dir(stack))
    if as_json:
        print(json.dumps(_data(found), indent=2, default=str))
    else:
        colour = "green" if found.healthy else "yellow" if found.running else "dim"
        console.print(f"[{colour}]{stack}: {found.detail}[/]")
        for label, value in _status_rows(found):
            console.print(f"  {label:<12} {value}", markup=False)
    if not found.healthy:
        raise typer.Exit(1)


def _only_here(stack: str) -> None:
    """For what is deployed in a cluster, kubectl is the tool. Exits with 2 and says so."""
    if _state_dir(stack).exists():
        return
    plan = offline.record(stack).plan
    if plan.cluster.mode is not ClusterMode.LOCAL:
        errors.print(f"stack {stack} runs in a cluster: kubectl -n {plan.namespace} get rayservice,pods", markup=False)
        raise typer.Exit(2)


def _status_rows(found: Any) -> list[tuple[str, str]]:
    lines = []
    if found.url:
        lines += [("endpoint", f"{found.url}/v1"), ("dashboard", found.dashboard_url)]
    for name, count in (found.replicas or {}).items():
        lines.append(("replicas", f"{count} {name}"))
    if found.processes:
        lines.append(("processes", f"{found.processes}, {found.memory_gib:.1f} GiB"))
    for extra in ("haproxy",):
        if getattr(found, extra, None):
            lines.append((extra, str(getattr(found, extra))))
    return lines


@app.command(epilog="Example: rayline logs --stack local --component replica --lines 100")
def logs(
    stack: StackOption = "local",
    component: Annotated[
        str | None, typer.Option("--component", "-c", help="ray, dashboard, controller, replica or haproxy.")
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", help="Lines of each file.")] = 40,
) -> None:
    """Show the last log lines of what runs on this machine, or of what failed last."""
    from .local import runtime

    with _plain_errors():
        _only_here(stack)
        for line in runtime.logs(_state_dir(stack), component=component, lines=lines):
            print(line)


def _secret_values(program: offline.Program) -> dict[tuple[str, str], str]:
    generations = {api_key_secret(service.name): service.api_key_generation for service in program.plan.services}
    return secret_values(render.secrets(program), _state_dir(program.stack), generations)


@app.command(epilog='Example: curl -H "Authorization: Bearer $(rayline key)" http://127.0.0.1:8000/v1/models')
def key(
    stack: StackOption = "local",
    previous: Annotated[bool, typer.Option("--previous", help="The key before it, which stays valid.")] = False,
) -> None:
    """Print the API key of the service on this machine (in a cluster: `pulumi stack output api_keys --show-secrets`)."""
    with _plain_errors():
        program = offline.record(stack)
        if program.plan.cluster.mode is not ClusterMode.LOCAL:
            errors.print(f"pulumi stack output api_keys --show-secrets --stack {stack}")
            raise typer.Exit(2)
        service = program.plan.services[0]
        if not service.api_key:
            errors.print(f"the service {service.name} asks for no key")
            raise typer.Exit(1)
        if previous and service.api_key_generation == 1:
            errors.print(f"the service {service.name} has its first key: there is none before it")
            raise typer.Exit(1)
        wanted = PREVIOUS_API_KEY_KEY if previous else API_KEY_KEY
        print(_secret_values(program)[api_key_secret(service.name), wanted])


@app.command(epilog="Example: rayline bench --arms sample,kit-equal,vllm --concurrency 64,256 --repeats 5")
def bench(
    context: typer.Context,
    stack: StackOption = "local",
    arms: Annotated[str, typer.Option(help="Arms, with commas; `--list` shows them.")] = "sample,kit-equal,kit,vllm",
    arm: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="One more arm: a YAML file laid over another (docs/benchmark.md)."),
    ] = None,
    base: Annotated[str, typer.Option(help="The arm that ratios are against.")] = "sample",
    workloads: Annotated[str, typer.Option(help="Workloads, with commas; `--list` shows them.")] = "tokens",
    concurrency: Annotated[
        str, typer.Option(help="Requests under way at once, with commas; `workload`: each workload's own.")
    ] = "64",
    requests: Annotated[int, typer.Option(help="Requests of one measurement; 0: each workload's own.")] = 512,
    repeats: Annotated[int, typer.Option(help="How often each point is measured.")] = 3,
    replicas: Annotated[str, typer.Option(help="Engines of each arm, with commas.")] = "1",
    model: Annotated[str, typer.Option(help="The model; empty: the stack's own.")] = "rayline/tiny-random-qwen3",
    engine: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="An engine argument for all arms that are to be equal."),
    ] = None,
    receipt: Annotated[
        pathlib.Path | None, typer.Option(help="Where the receipt goes; else .rayline/bench/<time>.json.")
    ] = None,
    resume: Annotated[
        pathlib.Path | None, typer.Option(help="Go on with this receipt and its options; --repeats may be more.")
    ] = None,
    service: Annotated[str, typer.Option(help="In a cluster: which service, where the stack has several.")] = "",
    config_file: ConfigFileOption = None,
    goals: Annotated[
        str,
        typer.Option(
            metavar="equal|shipped|replicas",
            help="What some of the kit's goals are stated for, in place of --arms, --base, --workloads, --concurrency, "
            "--requests, --repeats and --replicas.",
        ),
    ] = "",
    report: Annotated[
        pathlib.Path | None, typer.Option(help="Measure nothing: figures and page of this receipt.")
    ] = None,
    show: Annotated[
        bool, typer.Option("--list", help="Show arms, how they differ, and workloads; start nothing.")
    ] = False,
    render_job: Annotated[
        bool, typer.Option("--render", help="In a cluster: print the Job and what belongs to it; apply nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure ways to serve one model on this machine, side by side and in turns, and write a receipt.

    For a stack in a cluster: the service as it runs, from a Job beside it.
    Exit codes: 0 measured, 1 a point could not be measured or more than 0.1 % of its requests failed, 2 the command or the
    configuration is wrong, 130 interrupted.
    """
    from .bench import command
    from .bench import goals as goal_rows

    sources = ((name, context.get_parameter_source(name)) for name in context.params)
    given = [name for name, source in sources if source and source.name == "COMMANDLINE"]
    if report or resume:
        option, own = ("--report", {"report", "as_json"}) if report else ("--resume", command.BESIDE_RESUME)
        if others := [name for name in given if name not in own]:
            flags = {"show": "--list", "render_job": "--render"}
            others = [flags.get(name, f"--{name.replace('_', '-')}") for name in others]
            raise typer.BadParameter(f"the receipt decides: leave out {', '.join(others)}", param_hint=option)
    if resume and "repeats" not in given:
        repeats = 0
    if goals:
        if goals not in goal_rows.RUNS:
            raise typer.BadParameter(f"{goals!r} is none of {', '.join(goal_rows.RUNS)}", param_hint="--goals")
        fixed = ("arms", "base", "workloads", "concurrency", "requests", "replicas")
        if others := [f"--{name}" for name in fixed if name in given]:
            raise typer.BadParameter(f"it decides on them: leave out {', '.join(others)}", param_hint="--goals")
        run = goal_rows.RUNS[goals]
        arms, base, workloads, replicas = ",".join(run.arms), run.base, goal_rows.WORKLOAD, str(run.replicas)
        concurrency = ",".join(map(str, goal_rows.CONCURRENCIES))
        requests, repeats = goal_rows.REQUESTS, max(repeats, goal_rows.REPEATS)
    with _plain_errors():
        values = command.Values(
            stack=stack,
            arms=arms,
            overlays=arm or [],
            base=base,
            workloads=workloads,
            concurrency=concurrency,
            requests=requests,
            repeats=repeats,
            replicas=replicas,
            model=model,
            engine=engine or [],
            receipt=receipt,
            resume=resume,
            as_json=as_json,
            service=service,
            config_file=config_file,
        )
        if report:
            code = command.show_receipt(values, report, console)
        elif render_job:
            code = command.render(values)
        else:
            code = command.show(values, STATE, console) if show else command.bench(values, STATE, console)
    raise typer.Exit(code)


def _data(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _data(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {name: _data(item) for name, item in value.items()}
    return [_data(item) for item in value] if isinstance(value, (list, tuple)) else value


def main() -> None:
    """Entry point of the `rayline` command."""
    try:
        app()
    except BrokenPipeError:
        # the reader of a pipe went away, which is its right
        sys.stderr.close()


if __name__ == "__main__":
    main()
