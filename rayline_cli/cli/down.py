"""`rayline down`."""

import typer

from .checking import data
from .common import JsonOption, StackOption, YesOption, app, console, plain_errors, state_dir


@app.command(epilog="Example: rayline down --stack local")
def down(stack: StackOption = "local", yes: YesOption = False, as_json: JsonOption = False) -> None:
    """Stop what `up` started: the session on this machine, or the stack in a cluster with `pulumi destroy`."""
    with plain_errors():
        # The session's own state decides: a stack file that no longer parses must not keep a session running.
        if not state_dir(stack).exists():
            _destroy(stack, yes=yes, as_json=as_json)
        from rayline_cli.local import runtime
        from rayline_cli.progress import terminal_report

        with terminal_report() as report:
            stopped = runtime.down(state_dir(stack), report)
    if as_json:
        import json

        print(json.dumps({"stack": stack, "stopped": stopped}))
    elif not stopped:
        console.print("nothing was running")


def _destroy(stack: str, *, yes: bool, as_json: bool) -> None:
    """Run `pulumi destroy` for a stack in a cluster, and end the command with its exit code."""
    from rayline.facts.choices import ClusterMode
    from rayline_cli import deploy, offline

    program = offline.record(stack)
    if program.plan.cluster.mode is ClusterMode.LOCAL:
        return
    deploy.need_yes("down", stack, yes=yes, as_json=as_json)
    arguments = deploy.arguments("destroy", stack, yes=yes, terminal=deploy.is_terminal() and not as_json)
    if not as_json:
        raise typer.Exit(deploy.run_pulumi(arguments))
    import json

    done = deploy.operate(arguments)
    print(json.dumps(data(done), indent=2))
    raise typer.Exit(done.exit_code)
