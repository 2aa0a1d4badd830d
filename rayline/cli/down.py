"""`rayline down`."""

import typer

from .common import JsonOption, StackOption, app, console, plain_errors, state_dir


@app.command(epilog="Example: rayline down --stack local")
def down(stack: StackOption = "local", as_json: JsonOption = False) -> None:
    """Stop what `up` started: the session on this machine, or the cloud stack with `pulumi destroy`."""
    with plain_errors():
        # The session's own state decides: a stack file that no longer parses must not keep a session running.
        if not state_dir(stack).exists():
            _destroy(stack)
        from rayline.local import runtime
        from rayline.local.report import terminal_report

        with terminal_report() as report:
            stopped = runtime.down(state_dir(stack), report)
    if as_json:
        import json

        print(json.dumps({"stack": stack, "stopped": stopped}))
    elif not stopped:
        console.print("nothing was running")


def _destroy(stack: str) -> None:
    """Run `pulumi destroy` for a stack in a cluster, and end the command with its exit code."""
    from components.facts.choices import ClusterMode
    from rayline import deploy, offline

    program = offline.record(stack)
    if program.plan.cluster.mode is not ClusterMode.LOCAL:
        raise typer.Exit(deploy.run_pulumi(["destroy", "--stack", stack]))
