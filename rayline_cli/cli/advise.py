"""`rayline advise`."""

import pathlib
from typing import Annotated, Any

import typer

from .common import PROJECT_ROOT, JsonOption, app, console, print_json, print_line


@app.command(epilog="Example: rayline advise --model Qwen/Qwen3.5-9B --requests-per-second 20")
def advise(
    model: Annotated[str, typer.Option("--model", "-m", help="Model with a file (`rayline model list`).")],
    tokens_in: Annotated[int, typer.Option("--input", min=1, max=10_000_000, help="Tokens of a prompt.")] = 1024,
    tokens_out: Annotated[int, typer.Option("--output", min=1, max=10_000_000, help="Tokens of an answer.")] = 256,
    requests_per_second: Annotated[
        float | None, typer.Option("--requests-per-second", min=0.001, max=1e6, help="Load. Without it, one replica is priced.")
    ] = None,
    region: Annotated[str, typer.Option("--region", help="Region of the prices.")] = "us-central1",
    folder: Annotated[pathlib.Path, typer.Option("--folder", help="Folder with files of models.", show_default="models/")] = (
        PROJECT_ROOT / "models"
    ),
    as_json: JsonOption = False,
) -> None:
    """Compare the GPUs for a model and a load: what fits, its price, and the replicas, from measurements of others."""
    from rich.table import Table

    from rayline.schema.check import PlanError
    from rayline_cli import advise as advice
    from rayline_cli.errors import UsageError

    load = advice.TrafficLoad(tokens_in, tokens_out, requests_per_second)
    try:
        rows = advice.compare(model, str(folder) if folder.is_dir() else None, load, region)
    except PlanError as error:
        raise UsageError(str(error)) from None
    if as_json:
        print_json(rows)
        return
    table = Table(title=f"{model}, {tokens_in:,} tokens in and {tokens_out:,} out, {region}")
    for heading in (
        "GPU",
        "replica",
        "longest context",
        "requests at once",
        "tokens/s",
        "$ a million tokens",
        "replicas",
        "$ a month",
    ):
        table.add_column(heading, justify="left" if heading in ("GPU", "replica") else "right")
    for row in rows:
        table.add_row(*_cells(row))
    console.print(table)
    print_line("tokens/s: prompts and answers of one replica, measured elsewhere at another load; - is not known.")
    for row in (row.measured for row in rows if row.measured):
        print_line(f"{row.accelerator.value}: {row.load} ({row.source})")


def _cells(row: Any) -> list[str]:
    def shown(value: Any, form: str = ",") -> str:
        return "-" if value is None else format(value, form)

    if not row.gpus:
        return [row.accelerator.value, "does not fit", "-", "-", "-", "-", "-", "-"]
    replica = f"{row.gpus} x on {row.machine}{f', {row.capacity.value}' if row.capacity else ''}"
    return [
        row.accelerator.value,
        replica,
        shown(row.longest_context),
        shown(row.requests_at_once),
        shown(row.tokens_per_second),
        shown(row.usd_per_million, ".2f"),
        shown(row.replicas),
        shown(row.usd_per_month, ",.0f"),
    ]
