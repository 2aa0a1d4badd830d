"""`rayline advise`."""

import pathlib
from typing import Annotated, Any

import typer

from .common import JsonOption, app, console, print_json, print_line


@app.command(epilog="Example: rayline advise --model Qwen/Qwen3.5-9B --requests-per-second 20")
def advise(
    model: Annotated[str | None, typer.Option("--model", "-m", help="Model with a file (`rayline model list`).")] = None,
    stack: Annotated[str | None, typer.Option("--stack", "-s", help="Take model, load and region from a stack file.")] = None,
    service: Annotated[str | None, typer.Option("--service", help="Service of the stack, where it has several.")] = None,
    input_tokens: Annotated[
        int | None, typer.Option("--input", min=1, max=10_000_000, help="Tokens of a prompt.", show_default="1024")
    ] = None,
    output_tokens: Annotated[
        int | None, typer.Option("--output", min=1, max=10_000_000, help="Tokens of an answer.", show_default="256")
    ] = None,
    requests_per_second: Annotated[
        float | None, typer.Option(min=0.001, max=1e6, help="Load. Without it and users, one replica is priced.")
    ] = None,
    concurrent_users: Annotated[int | None, typer.Option(min=1, help="Load as requests in progress at once.")] = None,
    time_to_first_token_ms: Annotated[float | None, typer.Option(min=1, max=3_600_000, help="Bound, milliseconds.")] = None,
    time_per_output_token_ms: Annotated[float | None, typer.Option(min=0.1, max=3_600_000, help="Bound, milliseconds.")] = None,
    region: Annotated[str | None, typer.Option(help="Region of the prices.", show_default="us-central1")] = None,
    folder: Annotated[
        pathlib.Path | None, typer.Option("--folder", help="Folder with files of models.", show_default="models/")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the GPUs for a model and a load: what fits, its price, and the replicas, from measurements and estimates of others."""
    from rayline.schema.check import PlanError
    from rayline_cli import advise as advice
    from rayline_cli.errors import UsageError

    if (model is None) == (stack is None):
        raise typer.BadParameter("either --model or --stack. Fix: give one of the two")
    if requests_per_second is not None and concurrent_users is not None:
        raise typer.BadParameter("--requests-per-second and --concurrent-users exclude each other. Fix: leave one out")
    options = {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "requests_per_second": requests_per_second,
        "concurrent_users": concurrent_users,
        "time_to_first_token_ms": time_to_first_token_ms,
        "time_per_output_token_ms": time_per_output_token_ms,
    }
    load = {key: value for key, value in options.items() if value is not None}
    try:
        question = advice.question(stack, service, load, model=model, models=folder and str(folder), region=region)
        rows = advice.compare(question)
    except PlanError as error:
        raise UsageError(str(error)) from None
    if as_json:
        print_json(rows)
    else:
        _print(question, rows)


HEADINGS = ("GPU", "replica", "longest context", "requests at once", "requests/s of a replica", "ms to first token, a token")
HEADINGS += ("replicas", "$ a million tokens", "$ a month")


def _print(question: Any, rows: list[Any]) -> None:
    from rich.table import Table

    workload = question.workload
    loads = {"requests/s": workload.requests_per_second, "users at once": workload.concurrent_users}
    load = "".join(f", {value:g} {unit}" for unit, value in loads.items() if value is not None)
    tokens = f"{workload.input_tokens:,} tokens in and {workload.output_tokens:,} out"
    table = Table(title=f"{question.service['model']}, {tokens}{load}, {question.region}")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in HEADINGS[:2] else "right")
    for row in rows:
        table.add_row(*_cells(row))
    console.print(table)
    for row in (row for row in rows if row.gpus):
        forecast = row.outlook.forecast
        known = forecast.source if forecast else f"not known: {row.not_known}"
        if row.measured and not forecast:
            load = f"{row.measured.load}; {row.measured.source}"
            known = f"{row.tokens_per_second:,} tokens/s of a replica, as measured elsewhere ({load}); for this load {known}"
        print_line(f"{row.accelerator.value}: {known}")


def _cells(row: Any) -> list[str]:
    from rayline.service.workload import span
    from rayline_cli.forecast_view import dollars

    if not row.gpus:
        return [row.accelerator.value, "does not fit", *["-"] * (len(HEADINGS) - 2)]
    outlook, forecast = row.outlook, row.outlook.forecast
    times = (forecast.first_token_ms, forecast.token_ms) if forecast else (None, None)
    latency = ", ".join("-" if ms is None else f"{ms:,.0f}" for ms in times)
    if forecast and forecast.within is False:
        latency += ": above the bound"
    elif times == (None, None):
        latency = "latency not known"
    return [
        row.accelerator.value,
        f"{row.gpus} x on {row.machine}{f', {row.capacity.value}' if row.capacity else ''}",
        f"{row.longest_context:,}",
        f"{outlook.at_once:,}",
        span(forecast.least, forecast.most, ",.1f") if forecast else "-",
        latency,
        "-" if outlook.fewest is None else span(outlook.fewest, outlook.most),
        dollars(*row.usd_per_million) if row.usd_per_million else "-",
        "-" if row.usd_per_month is None else f"{row.usd_per_month:,.0f}{'' if outlook.fewest else ' a replica'}",
    ]
