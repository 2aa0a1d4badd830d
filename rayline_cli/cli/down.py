"""`rayline down`."""

import typer

from .common import JsonOption, StackOption, YesOption, app, console, failure, is_here, print_json, state_dir


@app.command(epilog="Example: rayline down --stack local")
def down(stack: StackOption = "local", yes: YesOption = False, as_json: JsonOption = False) -> None:
    """Stop a stack: end the session on this machine, or destroy the stack in a cluster with `pulumi destroy`."""
    if not is_here(stack):
        raise typer.Exit(_destroy(stack, yes=yes, as_json=as_json))
    from rayline_cli.local import runtime
    from rayline_cli.progress import terminal_report

    with terminal_report() as report:
        stopped = runtime.down(state_dir(stack), report)
    if as_json:
        print_json({"stack": stack, "command": "down", **failure(0), "stopped": stopped})
    elif not stopped:
        console.print("nothing was running")


def _destroy(stack: str, *, yes: bool, as_json: bool) -> int:
    """Run `pulumi destroy` for a stack in a cluster. Return the exit code."""
    from rayline_cli import deploy, offline

    offline.record(stack)
    deploy.need_yes("down", stack, yes=yes, as_json=as_json)
    arguments = deploy.arguments("destroy", stack, yes=yes, terminal=deploy.is_terminal() and not as_json)
    if not as_json:
        return deploy.run_pulumi(arguments)
    done = deploy.operate(arguments)
    print_json(done)
    return done.exit_code
